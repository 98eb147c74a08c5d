"""LoRA files where they come from: what an address stands for now, their first bytes, their whole."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, NoReturn, TypeVar

import aiohttp

from darkroom.errors import (
    LoraDenied,
    LoraError,
    LoraForbidden,
    LoraNotFound,
    LoraRedirectForbidden,
    LoraTooLarge,
    LoraTruncated,
    LoraUnreachable,
)
from darkroom.fetch.transport import BACKOFF_S, CHUNK_BYTES, Answer, Refused, Transient, Transport, Unreachable
from darkroom.lora.address import Address, HubFile, Link, check_name, only_file, parse_address
from darkroom.lora.header import LENGTH_BYTES, header_bytes
from darkroom.lora.store import Incoming
from darkroom.lora.version import Version

HEAD_BYTES: Final = 2**17
"""Asked for at first; most headers are within it."""
MAX_LISTING_BYTES: Final = 4 * 2**20
SETTLED_S: Final = 60
"""Dates are told in whole seconds, and by clocks that differ a little."""

TELLING_BYTES: Final = 64
"""As many as tell what a file is."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE: Final = re.compile(r"bytes +(\d+)-\d+/(\d+)")

T = TypeVar("T")

Check = Callable[[bytes, int], object]
"""Is given a file's header, with the eight bytes before it, and the whole file's size. Raises `LoraError`."""
Advance = Callable[[int, int | None], object]
"""Is told how many bytes are here, and of how many where that is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """data: the file's header, with the eight bytes before it."""

    version: Version
    data: bytes


class Remote:
    """hub: address of Hugging Face or a mirror. max_bytes: of the largest file taken. check: what each file's header
    must pass before the rest is read."""

    def __init__(self, *, transport: Transport, hub: str, max_bytes: int, check: Check) -> None:
        self._transport = transport
        self._hub = hub
        self._max_bytes = max_bytes
        self._check = check

    def parse(self, text: str, *, field: str) -> Address:
        """Raises `InvalidField`, `LoraNotSafetensors`."""
        return parse_address(text, field=field, hub=self._hub)

    def check(self, head: bytes, size_bytes: int, *, field: str) -> None:
        """head: as a `Check` is given it. Raises `LoraError` if the rest is not worth reading."""
        try:
            self._check(head, size_bytes)
        except LoraError as error:
            raise error.at(field) from error

    async def locate(self, address: Address, *, field: str) -> Address:
        """The address with its file named. Raises `InvalidField` if the repository has several or none, `LoraError`."""
        if isinstance(address, Link) or address.path is not None:
            return address
        files = await _tried(lambda: self._list(address, field), field)
        path = only_file(files, repository=address.repository, field=field)
        return HubFile(repository=address.repository, path=path, revision=address.revision)

    def url(self, address: Address) -> str:
        """What is asked for a located address."""
        return address.url if isinstance(address, Link) else address.link(self._hub)

    async def head(self, address: Address, *, field: str, known: str | None = None) -> Head | None:
        """What a located address stands for, by its first bytes, unchecked; None if it is still the version whose
        validator is `known`. Raises `LoraError`."""
        return await _tried(lambda: self._head(address, field, known, HEAD_BYTES), field)

    async def look(self, address: Address, *, field: str, known: str | None = None) -> Version | None:
        """What a located address stands for, its header checked; None if it is still the version whose validator is
        `known`. Raises `LoraError`."""
        head = await self.head(address, field=field, known=known)
        if head is None:
            return None
        if head.version.size_bytes is not None:
            await asyncio.to_thread(self.check, head.data, head.version.size_bytes, field=field)
        return head.version

    async def download(
        self, url: str, into: Incoming, *, field: str, on_begin: Callable[[Version], object], on_advance: Advance
    ) -> Version:
        """The whole file, or what is missing of it, its header checked as soon as it has come; which version it is.
        Raises `LoraError`, OSError (no space, say).

        on_begin: is told the version before the body is read, and may raise.
        """
        address = self.parse(url, field=field)

        async def attempt() -> Version:
            async with self._open(self.url(address), field, _rest(into)) as answer:
                goes_on = _goes_on(into, answer.response)
                version = self._version(address, answer, field)
                on_begin(version)
                await self._receive(answer.response, into, version.size_bytes, field, on_advance, checked=goes_on)
            if version.size_bytes not in (None, into.size_bytes):
                raise Transient(f"{answer.response.url.host} sent another length than it said")
            return version

        return await _tried(attempt, field)

    async def _list(self, address: HubFile, field: str) -> list[str]:
        async with self._open(address.listing(self._hub), field, {}) as answer:
            body = await _read(answer.response, MAX_LISTING_BYTES)
        try:
            return [str(entry["rfilename"]) for entry in json.loads(body)["siblings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise LoraUnreachable(
                f"{field}: {answer.response.url.host} lists no files of {address.repository}", field=field
            ) from error

    async def _head(self, address: Address, field: str, known: str | None, count: int) -> Head | None:
        headers = {"Range": f"bytes=0-{count - 1}"}
        if known is not None and isinstance(address, Link):
            headers |= _conditional(known)
        async with self._open(self.url(address), field, headers) as answer:
            if answer.response.status == HTTPStatus.NOT_MODIFIED:
                return None
            version = self._version(address, answer, field)
            if version.validator is not None and version.validator == known:
                return None
            data = await _read(answer.response, count)
        wanted = _header_bytes(data, field)
        if len(data) >= wanted:
            return Head(version=version, data=data[:wanted])
        if count >= wanted:
            raise LoraTruncated(f"{field}: the file ends within its header", field=field)
        return await self._head(address, field, known, wanted)

    async def _receive(
        self,
        response: aiohttp.ClientResponse,
        into: Incoming,
        size_bytes: int | None,
        field: str,
        on_advance: Advance,
        *,
        checked: bool,
    ) -> None:
        """The body, refused as soon as its header is here if that is not to be. checked: whether it has been."""
        head, wanted = bytearray(), None if checked else LENGTH_BYTES
        validator = into.validator or _strong(response)
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            if into.size_bytes + len(chunk) > self._max_bytes:
                into.restart()
                self._too_large(field)
            if wanted is not None:
                head += chunk
                if len(head) >= LENGTH_BYTES:
                    wanted = _header_bytes(head, field)
                if len(head) >= wanted and size_bytes is not None:
                    await asyncio.to_thread(self.check, bytes(head[:wanted]), size_bytes, field=field)
                    wanted = None
            # Neither disk nor header is to hold up the loop that others' requests run on.
            await asyncio.to_thread(into.write, chunk)
            if wanted is None:
                into.validator = validator
            on_advance(into.size_bytes, size_bytes)
        if wanted is not None:
            await asyncio.to_thread(self.check, bytes(head), into.size_bytes, field=field)

    @asynccontextmanager
    async def _open(self, url: str, field: str, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """An answer of status 200, 206 or 304, or 416 to a file's rest. Raises `LoraError`, `Transient`."""
        try:
            async with self._transport.get(url, headers) as answer:
                if "If-Range" not in headers or answer.response.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    _judge(answer.response, field)
                yield answer
        except Refused as error:
            kind = LoraRedirectForbidden if error.redirected else LoraForbidden
            raise kind(f"{field}: {error}", field=field) from None
        except Unreachable as error:
            raise LoraUnreachable(f"{field}: {error}", field=field) from error

    def _version(self, address: Address, answer: Answer, field: str) -> Version:
        """Raises `LoraTooLarge`, `LoraNotSafetensors`."""
        response = answer.response
        if response.content_disposition and response.content_disposition.filename:
            check_name(response.content_disposition.filename, field=field)
        check_name(response.url.name, field=field)
        size_bytes = _size_bytes(response)
        if (size_bytes or 0) > self._max_bytes:
            self._too_large(field)
        validator = _validator(response)
        if isinstance(address, Link):
            return Version(url=address.url, name=address.name, validator=validator, digest=None, size_bytes=size_bytes)
        # The hub says more on the redirect to where its files are than that place does.
        told = {name.lower(): value for name, value in response.headers.items()} | dict(answer.told)
        commit, linked = told.get("x-repo-commit", ""), told.get("x-linked-etag", "").strip('"')
        fixed = HubFile(repository=address.repository, path=address.path, revision=commit)
        return Version(
            url=fixed.link(self._hub) if _COMMIT.fullmatch(commit) else address.link(self._hub),
            name=address.name,
            validator=linked or validator,
            digest=linked if _SHA256.fullmatch(linked) else None,
            size_bytes=size_bytes,
        )

    def _too_large(self, field: str) -> NoReturn:
        raise LoraTooLarge(f"{field}: the file is larger than {self._max_bytes:,} bytes", field=field)


async def _tried(attempt: Callable[[], Awaitable[T]], field: str) -> T:
    """Raises `LoraUnreachable` when no try has come through, and what else `attempt` raises."""
    for backoff_s in BACKOFF_S:
        try:
            return await attempt()
        except Transient:
            await asyncio.sleep(backoff_s)
    try:
        return await attempt()
    except Transient as error:
        raise LoraUnreachable(f"{field}: {error} ({len(BACKOFF_S) + 1} tries)", field=field) from error


async def _read(response: aiohttp.ClientResponse, count: int) -> bytes:
    """The body's first `count` bytes, or all of it if that is less."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(min(CHUNK_BYTES, count)):
        body += chunk
        if len(body) >= count:
            break
    return bytes(body[:count])


def _rest(into: Incoming) -> dict[str, str]:
    """Headers that ask for what is missing, or for all of it if it is another version by now."""
    return {"Range": f"bytes={into.size_bytes}-", "If-Range": into.validator} if into.validator else {}


def _goes_on(into: Incoming, response: aiohttp.ClientResponse) -> bool:
    """Whether the answer goes on where it broke off; if not, what has come is dropped. Raises `Transient` if it is
    neither that nor the whole."""
    if into.validator and response.status == HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if match and int(match[1]) == into.size_bytes and _validator(response) in (None, into.validator):
            return True
    into.restart()
    if response.status != HTTPStatus.OK:
        raise Transient(f"{response.url.host} sent another part than it was asked for")
    return False


def _validator(response: aiohttp.ClientResponse) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _strong(response: aiohttp.ClientResponse) -> str | None:
    """A validator that no two files of this address share: an ETag that is not weak, or, where there is none, a date so
    long ago that the file can't have been changed again within its second. None if there is neither."""
    validator = _validator(response)
    if "ETag" in response.headers:
        return validator if validator and validator.startswith('"') else None
    try:
        modified, now = (parsedate_to_datetime(response.headers[name]) for name in ("Last-Modified", "Date"))
        return validator if (now - modified).total_seconds() >= SETTLED_S else None
    except (KeyError, ValueError, TypeError):
        return None


def _header_bytes(start: bytes | bytearray, field: str) -> int:
    try:
        return header_bytes(bytes(start[:TELLING_BYTES]))
    except LoraError as error:
        raise error.at(field) from error


def _conditional(known: str) -> dict[str, str]:
    is_etag = known.startswith(('"', 'W/"'))
    return {"If-None-Match" if is_etag else "If-Modified-Since": known}


def _judge(response: aiohttp.ClientResponse, field: str) -> None:
    """Raises `LoraError` for an answer that is not the file."""
    host = response.url.host
    match response.status:
        case HTTPStatus.OK | HTTPStatus.PARTIAL_CONTENT | HTTPStatus.NOT_MODIFIED:
            pass
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise LoraDenied(
                f"{field}: {host} answered {response.status}: the file is not there, or is not for everyone; the "
                f"server's DARKROOM_LORA_TOKENS can name a token for {host}",
                field=field,
            )
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            raise LoraNotFound(f"{field}: {host} has no such file (it answered {response.status})", field=field)
        case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise LoraTruncated(f"{field}: the file is empty", field=field)
        case other:
            raise LoraUnreachable(f"{field}: {host} answered {other}", field=field)
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise LoraUnreachable(f"{field}: {host} sent the file compressed, unasked", field=field)


def _size_bytes(response: aiohttp.ClientResponse) -> int | None:
    """Of the whole file, where the answer says it."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return response.content_length
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[2]) if match else None
