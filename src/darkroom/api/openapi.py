"""The API's document: OpenAPI 3.1, written from the cards, the table of errors and the answers' shapes.

Written, not derived from the routes' signatures: a route reads its body itself, and each model has its own request.
Tests hold the routes and this against each other.
"""

from collections.abc import Mapping

from darkroom import __version__
from darkroom.api import answer_headers, refusals, schemas
from darkroom.api.answer_headers import RATE_LIMIT, headers
from darkroom.api.body import JSON, MULTIPART
from darkroom.api.model_schema import EXTENSION, component, examples, request_schema
from darkroom.api.operations import PICTURE_BYTES, json_answer, operation, parameter, parameter_components
from darkroom.api.paths import fixed_paths
from darkroom.api.refusals import answers
from darkroom.api.schemas import Schema, ref
from darkroom.api.webhook_paths import messages
from darkroom.catalogue.card import Card
from darkroom.job import MICRO
from darkroom.settings import Settings

TAGS = {
    "v1": "One call, one picture.",
    "v2": "Submit, ask how it is, get the result.",
    "requests": "What has been submitted, by its id.",
    "history": "What the key has submitted, as long as it is kept.",
    "webhooks": "Addresses that are told when the key's requests end.",
    "pictures": "Results, and pictures sent beforehand.",
    "account": "The key, and the models it may use.",
    "service": "The service itself.",
}

INTRODUCTION = """\
Edits pictures as a sentence says, behind Segmind's API.

**Bodies** are `application/json` or `multipart/form-data`, at most {body_bytes:,} bytes. In a form, numbers and truth
values are text. null and an empty text mean that nothing was sent. **Pictures** are http(s) addresses, data URLs, bare
base64, or files of a form: at most {picture_bytes:,} bytes and {picture_px:,} pixels each.

**Requests** and their results are kept for {retention_s:g} seconds after they have ended. A v1 call waits for
{v1_wait_s:g} seconds; then it is answered 504, and the request goes on under the id in `x-request-id`.

**Errors** have one body: `error` for people, `code` for programs, `request_id`, and `field` where one parameter is at
fault. Beside those of each operation, any path that is not in this document is answered with 404, and any method that
is not with 405, in the same shape; only `/` leads to this document's page, `/docs`.

{codes}

What is marked `{extension}` is Darkroom's own, and unknown to Segmind's API.
"""

_V1_HEADERS = (
    "x-request-id",
    "x-generation-time",
    "x-cost",
    "x-remaining-credits",
    "x-seed-value",
    "x-output-metadata",
)


def openapi(catalogue: Mapping[str, Card], settings: Settings) -> Schema:
    """The whole document, as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": __version__,
            "summary": "Self-hosted image editing behind Segmind's API",
            "description": _introduction(settings),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": (settings.public_url or "").rstrip("/") or "/"}],
        "security": [{"ApiKey": []}, {"Bearer": []}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": _v1(catalogue) | _v2(catalogue) | fixed_paths(),
        "webhooks": messages(),
        "components": {
            "schemas": _requests(catalogue) | schemas.schemas() | refusals.schemas(),
            "responses": refusals.responses(),
            "headers": answer_headers.components(),
            "parameters": parameter_components(),
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "Bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _introduction(settings: Settings) -> str:
    return INTRODUCTION.format(
        body_bytes=settings.max_body_bytes,
        picture_bytes=settings.max_picture_bytes,
        picture_px=settings.max_picture_px,
        retention_s=settings.retention_s,
        v1_wait_s=settings.v1_wait_s,
        codes=refusals.code_table(),
        extension=EXTENSION,
    )


def _v1(catalogue: Mapping[str, Card]) -> dict[str, Schema]:
    picture = {
        "description": "The picture: its bytes, or JSON where `base64` asked for it.",
        "headers": headers(*_V1_HEADERS) | headers(*RATE_LIMIT, required=False),
        "content": {**PICTURE_BYTES, JSON: {"schema": ref("InlinePicture")}},
    }
    refused = answers(*refusals.SUBMIT, refusals.JOB_FAILED, refusals.ENGINE_GONE, refusals.STILL_RUNNING)
    return {
        f"/v1/{slug}": {
            "post": _submit(
                "v1", "edit", card, {"200": picture} | refused, "Answered with the picture, once it is made."
            )
        }
        for slug, card in catalogue.items()
    }


def _v2(catalogue: Mapping[str, Card]) -> dict[str, Schema]:
    submitted = {"200": json_answer("Submitted", "Taken in.", *RATE_LIMIT)} | answers(*refusals.SUBMIT)
    return {
        f"/v2/{slug}": {"post": _submit("v2", "submit", card, submitted, "Answered at once, with where to ask for it.")}
        for slug, card in catalogue.items()
    }


def _submit(tag: str, verb: str, card: Card, responses: Mapping[str, Schema], words: str) -> Schema:
    content = {
        JSON: {"schema": ref(component(card, form=False)), "examples": examples(card)},
        MULTIPART: {"schema": ref(component(card, form=True))},
    }
    return operation(
        tag,
        f"{verb}_{card.slug.replace('-', '_')}",
        card.title,
        responses,
        description=f"{card.description} {words} Costs {card.price_micro / MICRO:g} credits.",
        parameters=[parameter("IdempotencyKey")],
        requestBody={"required": True, "content": content},
    )


def _requests(catalogue: Mapping[str, Card]) -> dict[str, Schema]:
    return {
        component(card, form=form): request_schema(card, form=form)
        for card in catalogue.values()
        for form in (False, True)
    }
