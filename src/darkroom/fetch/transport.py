"""Requests to addresses that a stranger chose.

A name is resolved more than once and need not give the same answer twice, so what is checked is the address each
socket is about to connect to, at every redirect.
"""

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from re import fullmatch

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from darkroom.allowlist import AllowList
from darkroom.fetch.addresses import Address, is_public
from darkroom.fetch.resolver import Resolver

MAX_URL_CHARS = 2048
MAX_TARGET_CHARS = 8192
"""Of a redirect's: file hosts sign their links at length."""
MAX_REDIRECTS = 5
CONNECT_S = 5.0
SILENCE_S = 15.0
BACKOFF_S = (0.2, 0.8)
"""Before the second and the third try, for those who try again after `Transient`."""
CHUNK_BYTES = 2**16

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429))
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "darkroom"}
_NOT_PUBLIC = "is not public (the server's DARKROOM_FETCH_ALLOW can let it through)"


class Refused(Exception):
    """An address is not to be fetched. redirected: it is one that another led to."""

    def __init__(self, message: str, *, redirected: bool) -> None:
        super().__init__(message)
        self.redirected = redirected


class Transient(Exception):
    """One try failed; another may not."""


class Unreachable(Exception):
    """No try will get an answer."""


class _Unfit(Exception):
    """An address is not to be fetched. Its message is to be read after "the address"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """response: of the last hop. told: what the redirects on the way said of the file, by lower-case header."""

    response: aiohttp.ClientResponse
    told: Mapping[str, str]


def unfit(url: str, allow: Sequence[str]) -> str | None:
    """Why this is no address to be fetched, as far as that is known without the network; to be read after "the
    address". `allow` is the setting `fetch_allow`."""
    try:
        _parse(url, AllowList.read(allow), max_chars=MAX_URL_CHARS)
    except _Unfit as error:
        return str(error)
    return None


def _parse(url: str, allow: AllowList, *, max_chars: int) -> URL:
    """Raises `_Unfit`."""
    if len(url) > max_chars:
        raise _Unfit(f"is longer than {max_chars:,} characters")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in url):
        raise _Unfit("contains control characters")
    try:
        parsed = URL(url)
        # Decoded for messages later on, which not every host allows.
        host, port, _ = parsed.raw_host, parsed.port, parsed.host
    except ValueError as error:
        raise _Unfit("is malformed") from error
    if parsed.scheme not in ("http", "https"):
        raise _Unfit("must begin with http:// or https://")
    if parsed.user is not None or parsed.password is not None:
        raise _Unfit("must not contain a user name or password")
    if not host or not port or not _is_host(host):
        raise _Unfit("names no host that could be reached")
    literals = _literals(host)
    if (
        literals
        and not allow.has_host(host, port)
        and not any(is_public(literal) or allow.has_address(literal, port) for literal in literals)
    ):
        raise _Unfit(_NOT_PUBLIC)
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


class Transport:
    """Asks public addresses and those in `allow` (the setting `fetch_allow`).

    tokens: bearer tokens by host, each sent to its host alone: over https, or to a host that `allow` has, and never on
    a redirect that has left the first host. resolver makes the name resolver of each connection; by default they share
    one `Resolver`.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str],
        tokens: Mapping[str, str] | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._allow = AllowList.read(allow)
        self._tokens = {host.lower(): token for host, token in (tokens or {}).items()}
        shared = Resolver()
        self._resolver = resolver or (lambda: shared)

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """What the address answers at the end of its redirects, whatever its status, unless that is one that passes.

        Raises `Refused`, `Unreachable`, `Transient`, the last one also while the body is read.
        """
        told = dict[str, str]()
        first: URL | None = None
        for _ in range(MAX_REDIRECTS + 1):
            redirected = first is not None
            parsed = self._fit(url, redirected=redirected)
            first = first or parsed
            sent = {**_HEADERS, **headers, **self._authorization(parsed, first)}
            async with self._one("GET", parsed, sent, redirected=redirected) as response:
                if response.status in _TRANSIENT or response.status >= 500:
                    raise Transient(f"{parsed.host} answered {response.status}")
                if response.status not in _REDIRECTS:
                    yield Answer(response=response, told=told)
                    return
                url = _target(response)
                told |= {name.lower(): value for name, value in response.headers.items()}
        raise Unreachable(f"the address redirects more than {MAX_REDIRECTS} times")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status that the address itself answers with: redirects are not gone after.

        Raises `Refused`, `Unreachable`, `Transient`.
        """
        parsed = self._fit(url, redirected=False)
        async with self._one("POST", parsed, {**_HEADERS, **headers}, body, redirected=False) as response:
            return response.status

    def _fit(self, url: str, *, redirected: bool) -> URL:
        """Raises `Refused`."""
        try:
            return _parse(url, self._allow, max_chars=MAX_TARGET_CHARS if redirected else MAX_URL_CHARS)
        except _Unfit as error:
            what = "the address redirects to one that" if redirected else "the address"
            raise Refused(f"{what} {error}", redirected=redirected) from None

    def _authorization(self, url: URL, first: URL) -> dict[str, str]:
        host = url.raw_host or ""
        token = self._tokens.get(host.lower())
        private = url.scheme == "https" or self._allow.has_host(host, url.port or 0)
        return {"Authorization": f"Bearer {token}"} if token and private and url.origin() == first.origin() else {}

    @asynccontextmanager
    async def _one(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None, *, redirected: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # A connector of its own: no connection is shared with another host's request, and none outlives it.
        connector = aiohttp.TCPConnector(
            resolver=self._resolver(),
            socket_factory=self._socket_factory(url, redirected=redirected),
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
                session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                yield response
        except aiohttp.ClientSSLError as error:
            raise Unreachable(f"no secure connection to {url.host} (certificate?)") from error
        except aiohttp.ClientConnectorDNSError as error:
            raise Transient(f"the name {url.host} was not found") from error
        except aiohttp.ClientConnectorError as error:
            raise Transient(f"no connection to {url.host}") from error
        except aiohttp.ServerTimeoutError as error:
            raise Transient(f"{url.host} did not answer in time") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Transient(f"the connection to {url.host} broke off") from error

    def _socket_factory(self, url: URL, *, redirected: bool) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
        def make(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, (host, port, *_) = info
            address = ip_address(host)
            named = url.raw_host is not None and self._allow.has_host(url.raw_host, int(port))
            if not (named or is_public(address) or self._allow.has_address(address, int(port))):
                raise Refused(f"the address of {url.host} {_NOT_PUBLIC}", redirected=redirected)
            return socket.socket(family, kind, protocol)

        return make


def _target(response: aiohttp.ClientResponse) -> str:
    try:
        return str(response.url.join(URL(response.headers["Location"])))
    except (KeyError, ValueError) as error:
        raise Unreachable(f"{response.url.host} answered {response.status} with no address to go on to") from error
