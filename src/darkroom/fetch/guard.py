"""The guarded fetcher: pictures from addresses that a stranger chose.

A name is resolved more than once and need not give the same answer twice, so what is checked is the address each
socket is about to connect to, at every redirect.
"""

import asyncio
import socket
import zlib
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from re import fullmatch
from typing import Never

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from darkroom.allowlist import AllowList
from darkroom.errors import (
    InvalidField,
    PictureForbidden,
    PictureInvalid,
    PictureTooLarge,
    PictureUnreachable,
)
from darkroom.fetch.addresses import Address, is_public
from darkroom.fetch.magic import HEAD_BYTES, is_markup, is_picture

MAX_URL_CHARS = 2048
MAX_REDIRECTS = 5
CONNECT_S = 5.0
SILENCE_S = 15.0
BACKOFF_S = (0.2, 0.8)
CHUNK_BYTES = 2**16

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429))
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "darkroom"}
_NOT_PUBLIC = "is not public (the server's DARKROOM_FETCH_ALLOW can let it through)"


class _Refused(Exception):
    """An address is not to be fetched. Its message is to be read after "the address"."""


class _Transient(Exception):
    """One try failed; another may not. Its message is for the client."""


def check_address(url: str, *, field: str, allow: Sequence[str]) -> None:
    """Refuse what is known to be unfetchable without asking the network. Raises `InvalidField`.

    `allow` is the setting `fetch_allow`.
    """
    try:
        _parse(url, AllowList.read(allow))
    except _Refused as error:
        raise InvalidField(f"{field}: the address {error}", field=field) from None


def _parse(url: str, allow: AllowList) -> URL:
    """Raises `_Refused`."""
    if len(url) > MAX_URL_CHARS:
        raise _Refused(f"is longer than {MAX_URL_CHARS:,} characters")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in url):
        raise _Refused("contains control characters")
    try:
        parsed = URL(url)
        # Decoded for messages later on, which not every host allows.
        host, port, _ = parsed.raw_host, parsed.port, parsed.host
    except ValueError as error:
        raise _Refused("is malformed") from error
    if parsed.scheme not in ("http", "https"):
        raise _Refused("must begin with http:// or https://")
    if parsed.user is not None or parsed.password is not None:
        raise _Refused("must not contain a user name or password")
    if not host or not port or not _is_host(host):
        raise _Refused("names no host that could be reached")
    literals = _literals(host)
    if (
        literals
        and not allow.has_host(host, port)
        and not any(is_public(literal) or allow.has_address(literal, port) for literal in literals)
    ):
        raise _Refused(_NOT_PUBLIC)
    return parsed


def _is_host(host: str) -> bool:
    if ":" in host:
        return fullmatch(r"[0-9a-f:.]+", host) is not None
    return len(host) <= 253 and fullmatch(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?", host) is not None


def _literals(host: str) -> tuple[Address, ...]:
    """The addresses that resolvers take this host for without a look-up: also 127.1, 0x7f000001 and localhost."""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return ip_address("127.0.0.1"), ip_address("::1")
    try:
        return (ip_address(host),)
    except ValueError:
        pass
    try:
        return (ip_address(socket.inet_aton(host)),)
    except OSError:
        return ()


class Fetcher:
    """Fetches pictures: from public addresses and those in `allow` (the setting `fetch_allow`), within `max_bytes` and
    within `timeout_s` for all redirects and retries together.

    `resolver` makes the name resolver of each connection; the system's by default.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str],
        max_bytes: int,
        timeout_s: float = 30.0,
        resolver: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
    ) -> None:
        self._allow = AllowList.read(allow)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolver = resolver

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

    async def _fetch(self, url: str, field: str) -> bytes:
        for backoff_s in BACKOFF_S:
            try:
                return await self._follow(url, field)
            except _Transient:
                await asyncio.sleep(backoff_s)
        try:
            return await self._follow(url, field)
        except _Transient as error:
            raise PictureUnreachable(f"{field}: {error} ({len(BACKOFF_S) + 1} tries)", field=field) from error

    async def _follow(self, url: str, field: str) -> bytes:
        """One try, through all its redirects."""
        what = "the address"
        for _ in range(MAX_REDIRECTS + 1):
            try:
                parsed = _parse(url, self._allow)
            except _Refused as error:
                raise PictureForbidden(f"{field}: {what} {error}", field=field) from None
            answer = await self._get(parsed, field)
            if isinstance(answer, bytes):
                return answer
            url, what = answer, "the address redirects to one that"
        raise PictureUnreachable(f"{field}: the address redirects more than {MAX_REDIRECTS} times", field=field)

    async def _get(self, url: URL, field: str) -> bytes | str:
        """The body, or the address this one redirects to."""
        # A connector of its own: no connection is shared with another host's request, and none outlives it.
        connector = aiohttp.TCPConnector(
            resolver=self._resolver(),
            socket_factory=self._socket_factory(url, field),
            happy_eyeballs_delay=None,
            use_dns_cache=False,
            force_close=True,
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.get(url, headers=_HEADERS, allow_redirects=False) as response,
            ):
                if response.status in _REDIRECTS:
                    return _target(response, field)
                if response.status in _TRANSIENT or response.status >= 500:
                    raise _Transient(f"{url.host} answered {response.status}")
                if response.status != 200:
                    raise PictureUnreachable(f"{field}: {url.host} answered {response.status}", field=field)
                return await self._read(response, field)
        except aiohttp.ClientSSLError as error:
            raise PictureUnreachable(
                f"{field}: no secure connection to {url.host} (certificate?)", field=field
            ) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise _Transient(f"the name {url.host} was not found") from error
        except aiohttp.ClientConnectorError as error:
            raise _Transient(f"no connection to {url.host}") from error
        except aiohttp.ServerTimeoutError as error:
            raise _Transient(f"{url.host} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(f"the connection to {url.host} broke off") from error

    def _socket_factory(self, url: URL, field: str) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
        def make(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, (host, port, *_) = info
            address = ip_address(host)
            named = url.raw_host is not None and self._allow.has_host(url.raw_host, int(port))
            if not (named or is_public(address) or self._allow.has_address(address, int(port))):
                raise PictureForbidden(f"{field}: the address of {url.host} {_NOT_PUBLIC}", field=field)
            return socket.socket(family, kind, protocol)

        return make

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
            raise _Transient("the answer broke off")
        return bytes(body)

    def _too_large(self, field: str) -> Never:
        raise PictureTooLarge(f"{field}: the picture is larger than {self._max_bytes:,} bytes", field=field)


def _target(response: aiohttp.ClientResponse, field: str) -> str:
    try:
        return str(response.url.join(URL(response.headers["Location"])))
    except (KeyError, ValueError) as error:
        raise PictureUnreachable(
            f"{field}: {response.url.host} answered {response.status} with no address to go on to", field=field
        ) from error


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
