"""The parts that the operations of the API's document are made of."""

from collections.abc import Mapping
from typing import Any

from darkroom.api.answer_headers import headers
from darkroom.api.body import JSON
from darkroom.api.model_schema import EXTENSION
from darkroom.api.schemas import ID, Schema, ref
from darkroom.api.submit import IDEMPOTENCY_HEADER, MAX_IDEMPOTENCY_NAME
from darkroom.edit import ImageFormat

PICTURE_BYTES: Mapping[str, Schema] = {
    kind.content_type: {"schema": {"type": "string", "format": "binary"}} for kind in ImageFormat
}
"""An answer's `content` where that is a picture."""

_IDEMPOTENCY = (
    "A name of your own for this request: sent again, the same request is answered as the first time and charged once, "
    "and a different one is refused."
)


def operation(tag: str, name: str, summary: str, responses: Mapping[str, Schema], **more: Any) -> Schema:
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        **more,
        "responses": dict(sorted(responses.items())),
    }


def json_answer(
    shape: str | tuple[str, ...], description: str, *sometimes: str, example: object | None = None
) -> Schema:
    """shape: the name of its schema, or of those of which it has one. sometimes: headers."""
    schema = ref(shape) if isinstance(shape, str) else {"oneOf": [ref(name) for name in shape]}
    return {
        "description": description,
        "headers": headers("x-request-id") | headers(*sometimes, required=False),
        "content": {JSON: {"schema": schema, **({} if example is None else {"examples": {"one": {"value": example}}})}},
    }


def parameter(name: str) -> Schema:
    """One of `parameter_components`."""
    return {"$ref": f"#/components/parameters/{name}"}


def in_path(name: str, description: str, **schema: Any) -> Schema:
    return _parameter("path", name, description, required=True, **schema)


def in_query(name: str, description: str, *, required: bool = False, **schema: Any) -> Schema:
    return _parameter("query", name, description, required=required, **schema)


def parameter_components() -> dict[str, Schema]:
    """components/parameters."""
    return {
        "IdempotencyKey": {
            "name": IDEMPOTENCY_HEADER,
            "in": "header",
            "description": _IDEMPOTENCY,
            "schema": {"type": "string", "maxLength": MAX_IDEMPOTENCY_NAME, "pattern": "^[!-~]([ -~]*[!-~])?$"},
            EXTENSION: True,
        },
        "RequestId": in_path("request_id", "The request's id, as it was submitted.", pattern=ID),
        "File": in_path("file", "The file's name."),
        "Expires": in_query("expires", "When the link expires.", required=True),
        "Signature": in_query("signature", "The server's, of the rest of the link.", required=True),
        "Range": _conditional("Range", "Which bytes to send."),
        "IfRange": _conditional("If-Range", "Take Range only if this is still the ETag."),
        "IfNoneMatch": _conditional("If-None-Match", "Send nothing if this is still the ETag."),
    }


def _parameter(place: str, name: str, description: str, *, required: bool, **schema: Any) -> Schema:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": description,
        "schema": {"type": "string"} | schema,
    }


def _conditional(name: str, description: str) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
