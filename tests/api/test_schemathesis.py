"""The document against a running server: generated requests, valid and invalid, are answered only as documented.

Nothing here reaches an engine. v1 is asked with a key that can't pay, so that a valid request is answered 406 at once;
v2 with one that can, so that it is queued.
"""

from base64 import b64decode
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import negative_data_rejection
from schemathesis.transport.serialization import Binary

from darkroom.api.body import MULTIPART
from darkroom.api.model_schema import PICTURE
from darkroom.api.openapi import openapi
from darkroom.catalogue import read_catalogue
from darkroom.errors import AdapterUnavailable
from darkroom.settings import Settings
from darkroom.uploads import FIELD
from serving import Node, serving

CATALOGUE = read_catalogue()
ADAPTED = {f"/{api}/{slug}" for api in ("v1", "v2") for slug, card in CATALOGUE.items() if "lora" in card.parameters}

ACCEPTABLE = (200, 401, 403, 404, 406, 409, 503)
SIBLINGS = "^/v[12]/qwen-image-edit-plus-(?!texture-apply$)"

CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {"with-security-parameters": False, "database": "none"},
        "checks": {
            # By the document, what is valid may still be unpaid for (406), or need an adapter that is not there (503).
            "positive_data_acceptance": {"expected-statuses": [*ACCEPTABLE]},
            "not_a_server_error": {"enabled": False},
        },
        "operations": [
            # One day may be too long after another, and an id another key's.
            {
                "include-path-regex": "^/inference-request/(generations|request-history)$",
                "checks": {"positive_data_acceptance": {"expected-statuses": [400, *ACCEPTABLE]}},
            },
            # Not every URI is an address that messages are sent to.
            {
                "include-path-regex": "^/webhook/(add|update)$",
                "checks": {"positive_data_acceptance": {"expected-statuses": [400, *ACCEPTABLE]}},
            },
            # A text that names an adapter may be no address.
            {
                "include-path-regex": SIBLINGS.replace("(?!texture-apply$)", ""),
                "checks": {"positive_data_acceptance": {"expected-statuses": [400, *ACCEPTABLE]}},
            },
            # The siblings differ in a value or two; the combinations are tried on one of them.
            {"include-path-regex": SIBLINGS, "phases": {"coverage": {"enabled": False}}},
        ],
    }
)
FILE = b64decode(PICTURE.partition(",")[2])
SCHEMA = schemathesis.openapi.from_dict(openapi(CATALOGUE, Settings()), config=CONFIG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A service whose engine can't be set up: what it accepts stays QUEUED."""
    settings = Settings(data=tmp_path_factory.mktemp("generated"), checkpoint="/nowhere")
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def rich(server: Node) -> str:
    return server.new_key("rich", credits=1e6)


@pytest.fixture(scope="module")
def poor(server: Node) -> str:
    return server.new_key("poor", credits=0)


def no_fault(_: CheckContext, response: Response, case: schemathesis.Case) -> None:
    """No answer is a server's fault; only the engine and the adapters may be missing, where that is documented."""
    if response.status_code >= 500:
        body = response.json()
        engine = case.path == "/health/ready" and body["status"] != "READY"
        adapter = case.path in ADAPTED and body.get("code") == AdapterUnavailable.code
        assert response.status_code == 503
        assert engine or adapter, body


@SCHEMA.parametrize()
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_every_operation(case: schemathesis.Case, server: Node, rich: str, poor: str) -> None:
    """No undocumented status, header, type or shape; what is valid is taken, what is not is refused."""
    _with_readable_pictures(case)
    key = poor if case.path.startswith("/v1/") else rich
    # A form sends a number's digits whether they were meant as number or as text: there is no telling what is invalid.
    excluded = [negative_data_rejection] if case.media_type == MULTIPART else []
    case.call_and_validate(
        base_url=server.url, headers={"x-api-key": key}, additional_checks=[no_fault], excluded_checks=excluded
    )


def _with_readable_pictures(case: schemathesis.Case) -> None:
    """That a text is a picture is beyond any schema; what else is wrong with the body shall be what is refused."""
    if not isinstance(case.body, dict):
        return
    card = CATALOGUE.get(case.path.rpartition("/")[2])
    picture = Binary(FILE) if case.media_type == MULTIPART else PICTURE
    for name in card.pictures if card else ():
        if _is_something(case.body.get(name)):
            case.body[name] = picture
    listed = case.body.get(FIELD)
    if isinstance(listed, list):
        case.body[FIELD] = [PICTURE if _is_something(value) else value for value in listed]


def _is_something(value: object) -> bool:
    return isinstance(value, Binary) or (isinstance(value, str) and value != "")
