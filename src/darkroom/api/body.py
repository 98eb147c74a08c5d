"""Reading what a client sent: JSON or multipart, never more than the limit."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from darkroom.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

MAX_PARTS = 100
MAX_COMMAS = 20_000
"""In JSON. A picture's text has one at most, and the longest prompt has fewer letters; a list of millions takes seconds
and gigabytes to read."""
UTF_8 = "utf-8"
JSON = "application/json"
MULTIPART = "multipart/form-data"


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """params: JSON values; from multipart, strings and, for file parts, bytes. text: it came as multipart."""

    params: Mapping[str, object]
    text: bool


async def read_body(request: Request, *, max_bytes: int) -> Body:
    """Raises `UnsupportedMediaType`, `BodyTooLarge`, `MalformedBody`."""
    if _content_type(request) == MULTIPART:
        return Body(params=await _multipart(request, max_bytes), text=True)
    if _content_type(request) == JSON:
        return Body(params=await read_json(request, max_bytes=max_bytes), text=False)
    raise UnsupportedMediaType(f"Invalid content type: send {JSON} or {MULTIPART}")


async def read_json(request: Request, *, max_bytes: int) -> Mapping[str, object]:
    """For a request that is taken as JSON only. Raises as `read_body` does."""
    if _content_type(request) != JSON:
        raise UnsupportedMediaType(f"Invalid content type: send {JSON}")
    data = b"".join([chunk async for chunk in _limited(request, max_bytes)])
    if data.count(b",") > MAX_COMMAS:
        raise MalformedBody("The body has more values than any request")
    return await asyncio.to_thread(_json, data)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    too_large = BodyTooLarge(f"The body is larger than the {max_bytes} bytes taken; send pictures as addresses instead")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        yield chunk


def _json(data: bytes) -> Mapping[str, object]:
    try:
        params = json.loads(data, object_pairs_hook=_unique, parse_constant=_not_json)
        if b"\\u" in data:
            # Half of a surrogate pair is JSON but no text: nothing after this could store or print it.
            json.dumps(params, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"The body is not JSON: {error}") from error
    if not isinstance(params, dict):
        raise MalformedBody("The body must be a JSON object: parameters by name")
    return params


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise MalformedBody(f"{name} stands twice in the body", field=name)
        found[name] = value
    return found


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


class _WholeMultiPart(MultiPartParser):
    """Knows whether the last boundary has come: a body that breaks off is one of fewer parts, and no error to the
    parser."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _multipart(request: Request, max_bytes: int) -> Mapping[str, object]:
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", UTF_8.encode()).decode("latin-1")
    if charset.lower() != UTF_8:
        # Python knows encodings that interpret escapes or yield half characters; a client needs none of them.
        raise MalformedBody(f"multipart/form-data is read as {UTF_8}, not {charset}")
    parser = _WholeMultiPart(
        request.headers,
        _limited(request, max_bytes),
        max_files=MAX_PARTS,
        max_fields=MAX_PARTS,
        max_part_size=max_bytes,
    )
    # The body is bounded already; a part spooled to a temporary file would be disk work in the event loop.
    parser.spool_max_size = max_bytes
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedBody(f"The body is not multipart/form-data: {error.message}") from error
    try:
        if not parser.ended:
            raise MalformedBody("The body is not multipart/form-data: it breaks off before its last boundary")
        return _unique([(name, await _value(part)) for name, part in form.multi_items()])
    finally:
        await form.close()


async def _value(part: str | UploadFile) -> str | bytes:
    if isinstance(part, str):
        return part
    data = await part.read()
    # What a browser sends for a file input left empty: none, like an empty text field.
    return data if data or part.filename else ""
