"""The document itself: valid, complete, true to the cards and the routes; its page; its examples."""

import json
import re
from base64 import b64decode
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

from darkroom.api.app import create_app
from darkroom.api.body import JSON, MULTIPART
from darkroom.api.model_schema import EXTENSION, PICTURE, component
from darkroom.api.openapi import openapi
from darkroom.api.refusals import GROUPS, WHEN
from darkroom.catalogue import read_catalogue
from darkroom.catalogue.card import Card
from darkroom.errors import DarkroomError, InvalidField, JobError, RequestError, UnknownField
from darkroom.settings import Settings
from document import Document
from serving import Node

CATALOGUE = read_catalogue()
CARDS = [*CATALOGUE.values()]
DOCUMENT = Document(openapi(CATALOGUE, Settings()))
SUBMITS = [(api, slug) for slug in CATALOGUE for api in ("v1", "v2")]


@pytest.fixture(scope="module")
def anyone(idle: Node):
    with idle.client(None) as client:
        yield client


def test_it_is_openapi() -> None:
    """Valid against the specification of OpenAPI 3.1."""
    assert DOCUMENT.document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(DOCUMENT.document).validate()


def test_it_is_served(anyone: httpx.Client, idle: Node) -> None:
    """To anyone, as the function writes it for this server's cards and settings."""
    answer = anyone.get("/openapi.json")
    assert answer.headers["content-type"] == JSON
    assert answer.json() == openapi(idle.service.catalogue, idle.service.settings)


def test_its_server_is_the_public_one() -> None:
    """Clients are sent to the address they can reach."""
    document = openapi(CATALOGUE, Settings(public_url="https://images.example.com/edit/"))
    assert document["servers"] == [{"url": "https://images.example.com/edit"}]
    assert DOCUMENT.document["servers"] == [{"url": "/"}]


def test_every_route_is_in_it(idle: Node) -> None:
    """Each path and method of the server is documented, each model by its name, and nothing else is."""
    served = set()
    for included in create_app(idle.service).routes:
        for route in included.original_router.routes:
            for path in _paths(route.path) if route.include_in_schema else ():
                served |= {(method, _anonymous(path)) for method in route.methods}
    documented = {(method, _anonymous(path)) for method, path, _ in DOCUMENT.operations().values()}
    assert documented == served


def _paths(template: str) -> list[str]:
    return [template.replace("{slug}", slug) for slug in CATALOGUE] if "{slug}" in template else [template]


def _anonymous(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


def test_every_error_is_in_it() -> None:
    """Whatever can be raised at a client has its words, its group and its row in the table."""
    assert WHEN.keys() == {*_leaves(RequestError), *_leaves(JobError)}
    codes = {code for group in GROUPS for code in group.codes}
    assert codes == {error.code for error in WHEN} | {"internal_error"}
    description = DOCUMENT.document["info"]["description"]
    for group in GROUPS:
        for code in group.codes:
            assert f"| {group.status} | `{code}` |" in description


def _leaves(kind: type[DarkroomError]) -> list[type[DarkroomError]]:
    return [leaf for child in kind.__subclasses__() for leaf in _leaves(child)] or [kind]


def test_every_component_is_used() -> None:
    """Nothing is defined that no operation leads to, but for what any path may answer."""
    text = str(DOCUMENT.document)
    anywhere = {"UnknownPath", "UnknownModel", "MethodNotAllowed"}
    components = DOCUMENT.document["components"]
    for kind in ("schemas", "responses", "parameters"):
        unused = {name for name in components[kind] if f"'#/components/{kind}/{name}'" not in text}
        assert unused <= anywhere, kind


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.slug)
def test_a_request_is_as_its_card(card: Card) -> None:
    """Names in the card's order, bounds, enums, defaults and marks are the card's."""
    for form in (False, True):
        schema = DOCUMENT.document["components"]["schemas"][component(card, form=form)]
        assert list(schema["properties"]) == list(card.parameters)
        assert schema["required"] == [name for name, parameter in card.parameters.items() if parameter.needed]
        for name, parameter in card.parameters.items():
            told = schema["properties"][name]
            value = told["anyOf"][0] if "anyOf" in told else told
            assert told["description"].startswith(parameter.description)
            assert told.get("default") == (parameter.default or None if parameter.default == "" else parameter.default)
            assert (value.get("minimum"), value.get("maximum")) == (parameter.minimum, parameter.maximum)
            assert value.get("maxLength") == parameter.max_chars
            assert [v for v in value.get("enum", ()) if v] == [*parameter.enum]
            assert told.get(EXTENSION, False) == parameter.extension
            assert ("Darkroom's own" in told["description"]) == parameter.extension


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 120),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " ", "x", "png", "1:1", "match_input_image", "none", "relight", "\0", "x" * 5001]),
    st.lists(st.integers(), max_size=1),
)


@pytest.mark.parametrize("card", [CATALOGUE["qwen-image-edit-plus"], CATALOGUE["qwen-image-edit-plus-multi-lora"]])
@given(data=st.data())
def test_a_schema_takes_what_its_card_takes(card: Card, data: st.DataObject) -> None:
    """For any JSON under any name, the schema and the card agree whether it may be sent."""
    least = {
        name: PICTURE if parameter.type == "image" else "x"
        for name, parameter in card.parameters.items()
        if parameter.needed
    }
    names = st.sampled_from([*card.parameters, "promt"])
    body = least | data.draw(st.dictionaries(names, VALUES, max_size=3))
    assert _takes(lambda: DOCUMENT.check(_body(card, JSON)["schema"], body)) == _takes(
        lambda: card.check(body, text=False)
    )


def _takes(check: Any) -> bool:
    try:
        check()
    except (ValidationError, InvalidField, UnknownField):
        return False
    return True


def _body(card: Card, media_type: str) -> dict[str, Any]:
    return DOCUMENT.document["paths"][f"/v2/{card.slug}"]["post"]["requestBody"]["content"][media_type]


def test_every_example_is_valid() -> None:
    """Of requests, by their schemas, and of errors."""
    checked = 0
    for _, _, operation in DOCUMENT.operations().values():
        parts = [operation.get("requestBody", {}), *map(DOCUMENT.resolved, operation["responses"].values())]
        for media in (media for part in parts for media in part.get("content", {}).values()):
            for example in media.get("examples", {}).values():
                DOCUMENT.check(media["schema"], example["value"])
                checked += 1
    assert checked > 100


@pytest.mark.parametrize(("api", "slug"), SUBMITS)
def test_the_examples_run(client: httpx.Client, api: str, slug: str) -> None:
    """As they are, as JSON and as a form with the picture as a file; a model whose adapter is missing says so."""
    card = CATALOGUE[slug]
    for name, example in _body(card, JSON)["examples"].items():
        params = example["value"]
        if api == "v1" and (name == "everything" or card.preset):
            params = params | {"num_inference_steps": 1}
        answers = [client.post(f"/{api}/{slug}", json=params)]
        if name == "least":
            fields = {field: value for field, value in params.items() if field not in card.pictures}
            files = {field: b64decode(PICTURE.partition(",")[2]) for field in card.pictures if field in params}
            answers.append(client.post(f"/{api}/{slug}", data=fields, files=files))
        for answer in answers:
            assert answer.status_code == (503 if card.preset else 200), answer.text
            DOCUMENT.hold(f"{'edit' if api == 'v1' else 'submit'}_{slug.replace('-', '_')}", answer)


def test_the_root_leads_to_the_page(anyone: httpx.Client) -> None:
    """By an address relative to it, so that it holds behind a path of a proxy's host."""
    answer = anyone.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")
    assert "/" not in DOCUMENT.document["paths"]


def test_the_page_asks_no_other_host(anyone: httpx.Client) -> None:
    """Every address in it is relative and served here, and the browser is told to keep to that."""
    page = anyone.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        assert re.fullmatch(r"docs/[a-z.-]+", address)
        assert anyone.get(f"/{address}").status_code == 200
    assert "//" not in page.text
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert all(
        set(sources.split()) <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"} for sources in policy.values()
    )


def test_the_pages_files_ask_no_other_host(anyone: httpx.Client) -> None:
    """The style sheet brings its own pictures; the start script takes the document from here and has no validator."""
    style = anyone.get("/docs/swagger-ui.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "@import" not in style.text
    assert all(re.match("[\"']?data:", source) for source in re.findall(r"url\(([^)]*)", style.text))
    start = anyone.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "validatorUrl: null" in start
    assert "SwaggerUIBundle" in anyone.get("/docs/swagger-ui-bundle.js").text
    assert anyone.get("/docs/favicon.png").headers["content-type"] == "image/png"


def test_a_forms_schema_has_files_and_no_null() -> None:
    """What a form can't say is not in its schema."""
    for card in CARDS:
        schema = DOCUMENT.resolved(_body(card, MULTIPART)["schema"])
        assert not any(
            "null" in str(told.get("type")) + str(told.get("anyOf")) for told in schema["properties"].values()
        )
        for name in card.pictures:
            assert schema["properties"][name]["format"] == "binary"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.slug)
def test_a_form_can_be_sent_as_it_is_shown(card: Card) -> None:
    """Swagger UI fills each field with its example, or else with one that it makes up: with the examples the card has
    the same request as without them."""
    schema = DOCUMENT.resolved(_body(card, MULTIPART)["schema"])
    shown = {
        name: _as_text(schema["properties"][name]["examples"][0])
        for name in card.parameters
        if name not in card.pictures
    }
    needed = {name: PICTURE for name in card.pictures if name in schema["required"]}
    least = needed | {name: shown[name] for name in schema["required"] if name in shown}
    assert card.check(needed | shown, text=True) == card.check(least, text=True)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
