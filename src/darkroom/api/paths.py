"""The paths of the API's document that are the same whatever models there are."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from darkroom.api import refusals
from darkroom.api.answer_headers import headers
from darkroom.api.body import JSON
from darkroom.api.docs import ASSETS
from darkroom.api.history_paths import history_paths
from darkroom.api.model_schema import EXTENSION, PICTURE
from darkroom.api.operations import PICTURE_BYTES, in_path, json_answer, operation, parameter
from darkroom.api.refusals import UNAUTHORIZED, UNKNOWN_REQUEST, answers
from darkroom.api.schemas import Schema, ref
from darkroom.api.webhook_paths import webhook_paths
from darkroom.uploads import FIELD

_KEPT_HEADERS = ("etag", "cache-control", "x-content-type-options")
_FILE_HEADERS = (*_KEPT_HEADERS, "content-length", "content-disposition", "accept-ranges", "last-modified")
_LINK_PARAMETERS = ("File", "Expires", "Signature", "Range", "IfRange", "IfNoneMatch")


def fixed_paths() -> dict[str, Schema]:
    return _requests() | history_paths() | webhook_paths() | _pictures() | _account() | _service()


def _requests() -> dict[str, Schema]:
    by_id = {"parameters": [parameter("RequestId")]}
    refused = answers(UNAUTHORIZED, UNKNOWN_REQUEST)
    failed = {"422": json_answer("Failed", "The request has FAILED.")}
    result = {"200": json_answer(("Result", "Pending"), "The result, or while there is none how the request is.")}
    status = {"200": json_answer(("Pending", "Completed"), "How the request is.")}
    stopped = {
        "200": json_answer(("Failed", "Completed"), "It has ended: by this call, or before it."),
        "202": json_answer("Pending", "It runs, and stops at its next step."),
    }
    return {
        "/v2/requests/{request_id}": by_id
        | {
            "get": operation("requests", "get_result", "The result", result | failed | refused),
            "delete": operation("requests", "cancel", "Cancel", stopped | refused, **{EXTENSION: True}),
        },
        "/v2/requests/{request_id}/status": by_id
        | {"get": operation("requests", "get_status", "How it is", status | failed | refused)},
        "/v2/requests/{request_id}/events": by_id
        | {
            "get": operation(
                "requests",
                "watch",
                "How it is, told as it moves",
                {"200": _stream()} | refused,
                description="Server-sent events, one now and one for each change. After that of the end it closes.",
                **{EXTENSION: True},
            )
        },
        "/v1/requests/{request_id}": by_id
        | {"get": operation("requests", "poll", "The result, as v1 names it", result | failed | refused)},
    }


def _stream() -> Schema:
    """JSON in `data` is beyond OpenAPI 3.1: the shapes are named in words."""
    words = "The `data` of each event is JSON: `Pending`, and of the last one `Completed` or `Failed`."
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "description": words,
        "headers": headers("x-request-id", "cache-control", "x-accel-buffering"),
        "content": content,
    }


def _pictures() -> dict[str, Schema]:
    links = {
        "/files/{request_id}/{file}": ("result", in_path("request_id", "The request's id.")),
        "/uploads/{key_id}/{file}": ("upload", in_path("key_id", "The id of the key it is of.")),
    }
    paths = {
        path: {
            "parameters": [owner, *map(parameter, _LINK_PARAMETERS)],
            "get": _link(f"get_{name}_file", f"The picture of a {name}"),
            "head": _link(f"head_{name}_file", f"What the picture of a {name} is"),
        }
        for path, (name, owner) in links.items()
    }
    return paths | {"/upload-asset": {"post": _upload()}}


def _link(name: str, summary: str) -> Schema:
    found = {
        "200": {
            "description": "The picture.",
            "headers": headers("x-request-id", *_FILE_HEADERS),
            "content": dict(PICTURE_BYTES),
        },
        "206": {
            "description": "The parts that Range asked for.",
            "headers": headers("x-request-id", *_FILE_HEADERS) | headers("content-range", required=False),
            "content": {**PICTURE_BYTES, "multipart/byteranges": {}},
        },
        "304": {"description": "You have it already.", "headers": headers("x-request-id", *_KEPT_HEADERS)},
    }
    refused = answers(refusals.LINK_INVALID, refusals.LINK_EXPIRED, refusals.RANGE_INVALID)
    words = "To be taken as it is from the answer that has it; it needs no key."
    return operation("pictures", name, summary, found | refused, description=words, security=[])


def _upload() -> Schema:
    refused = answers(
        refusals.BAD_REQUEST, UNAUTHORIZED, refusals.UNSUPPORTED, refusals.UPLOAD_TOO_LARGE, refusals.STORAGE_FULL
    )
    content = {"schema": ref("UploadRequest"), "examples": {"one": {"value": {FIELD: [PICTURE]}}}}
    return operation(
        "pictures",
        "upload",
        "Send pictures once, to name them in requests by their links",
        {"200": json_answer("Uploaded", "They are kept.")} | refused,
        requestBody={"required": True, "content": {JSON: content}},
    )


def _account() -> dict[str, Schema]:
    return {
        "/v1/get-user-credits": _own("get_credits", "What the key can still spend", "Credits"),
        "/api/auth/authenticate": _own("authenticate", "Who the key is", "KeyInformation"),
        "/inference-model-information/list": _own("list_models", "The models that the key may use", "Models"),
        "/v2/loras": _own("list_loras", "The LoRAs that go by a name", "Loras", **{EXTENSION: True}),
    }


def _own(name: str, summary: str, shape: str, **more: Any) -> Schema:
    found = {"200": json_answer(shape, f"{summary}.")}
    return {"get": operation("account", name, summary, found | answers(UNAUTHORIZED), **more)}


def _service() -> dict[str, Schema]:
    ready = {
        "200": json_answer("Readiness", "It can."),
        "503": json_answer("Readiness", "It can't; what is submitted waits."),
    }
    document = {"200": _plain({JSON: {"schema": {"type": "object"}}})}
    asset = {"200": _plain({media_type: {} for media_type in ASSETS.values()})}
    return {
        "/health/live": _public("get_live", "Whether the process answers", {"200": json_answer("Live", "It does.")}),
        "/health/ready": _public("get_ready", "Whether it can edit pictures", ready | answers()),
        "/openapi.json": _public("get_openapi", "This document", document | answers()),
        "/docs": _public("get_docs", "This document as a page", {"200": _plain({"text/html": {}})}),
        "/docs/{asset}": {"parameters": [in_path("asset", "A file of that page.", enum=[*ASSETS])]}
        | _public("get_docs_asset", "What the page is made of", asset | answers(refusals.UNKNOWN_PATH)),
    }


def _public(name: str, summary: str, responses: Mapping[str, Schema]) -> Schema:
    return {"get": operation("service", name, summary, responses, security=[])}


def _plain(content: Schema) -> Schema:
    return {"description": HTTPStatus.OK.phrase, "headers": headers("x-request-id"), "content": content}
