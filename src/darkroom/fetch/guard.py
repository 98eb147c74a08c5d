"""The guarded fetcher: pictures from addresses that a stranger chose."""

import asyncio
import zlib
from collections.abc import Callable, Sequence
from typing import Never

import aiohttp
from aiohttp.abc import AbstractResolver

from darkroom.errors import (
    InvalidField,
    PictureForbidden,
    PictureInvalid,
    PictureTooLarge,
    PictureUnreachable,
)
from darkroom.fetch.transport import BACKOFF_S, CHUNK_BYTES, Refused, Transient, Transport, Unreachable, unfit
from darkroom.magic import HEAD_BYTES, is_markup, is_picture

_HEADERS = {"Accept": "image/*"}


def check_address(url: str, *, field: str, allow: Sequence[str]) -> None:
    """Refuse what is known to be unfetchable without asking the network. Raises `InvalidField`.

    `allow` is the setting `fetch_allow`.
    """
    if problem := unfit(url, allow):
        raise InvalidField(f"{field}: the address {problem}", field=field)


class Fetcher:
    """Fetches pictures: from public addresses and those in `allow` (the setting `fetch_allow`), within `max_bytes` and
    within `timeout_s` for all redirects and retries together.

    `resolver` is `Transport`'s.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str],
        max_bytes: int,
        timeout_s: float = 30.0,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._transport = Transport(allow=allow, resolver=resolver)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def fetch(self, url: str, *, field: str) -> bytes:
        """The file at `url`, which begins as a picture does; nothing more is known of it.

        Raises `PictureUnreachable`, `PictureForbidden`, `PictureTooLarge`, `PictureInvalid`, each naming `field`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._fetch(url, field)
        except TimeoutError:
            raise PictureUnreachable(
                f"{field}: the picture did not arrive within {self._timeout_s:g} s", field=field
            ) from None
        except Refused as error:
            raise PictureForbidden(f"{field}: {error}", field=field) from None
        except Unreachable as error:
            raise PictureUnreachable(f"{field}: {error}", field=field) from error

    async def _fetch(self, url: str, field: str) -> bytes:
        for backoff_s in BACKOFF_S:
            try:
                return await self._get(url, field)
            except Transient:
                await asyncio.sleep(backoff_s)
        try:
            return await self._get(url, field)
        except Transient as error:
            raise PictureUnreachable(f"{field}: {error} ({len(BACKOFF_S) + 1} tries)", field=field) from error

    async def _get(self, url: str, field: str) -> bytes:
        """One try, through all its redirects."""
        async with self._transport.get(url, _HEADERS) as answer:
            response = answer.response
            if response.status != 200:
                raise Unreachable(f"{response.url.host} answered {response.status}")
            return await self._read(response, field)

    async def _read(self, response: aiohttp.ClientResponse, field: str) -> bytes:
        if (response.content_length or 0) > self._max_bytes:
            self._too_large(field)
        decoder = _decoder(response, field)
        body = bytearray()
        sniffed = False
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            try:
                # One byte past the limit is enough to know, so a small body can't unfold into a large one.
                body += decoder.decompress(chunk, self._max_bytes + 1 - len(body)) if decoder else chunk
            except zlib.error as error:
                raise PictureInvalid(f"{field}: the answer is not compressed as it says", field=field) from error
            if len(body) > self._max_bytes:
                self._too_large(field)
            if not sniffed and len(body) >= HEAD_BYTES:
                _sniff(body, field)
                sniffed = True
        if not sniffed:
            _sniff(body, field)
        if decoder and not decoder.eof:
            raise Transient("the answer broke off")
        return bytes(body)

    def _too_large(self, field: str) -> Never:
        raise PictureTooLarge(f"{field}: the picture is larger than {self._max_bytes:,} bytes", field=field)


def _decoder(response: aiohttp.ClientResponse, field: str) -> "zlib._Decompress | None":
    """Bodies are asked for uncompressed; some servers compress all the same."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    raise PictureInvalid(f"{field}: {response.url.host} sent the picture compressed, unasked", field=field)


def _sniff(body: bytearray, field: str) -> None:
    head = bytes(body[:HEAD_BYTES])
    if is_picture(head):
        return
    if not body:
        raise PictureInvalid(f"{field}: the address answered with nothing", field=field)
    what = "a web page or text" if is_markup(head) else "something else"
    raise PictureInvalid(f"{field}: the address answered with {what} instead of a picture", field=field)
