"""What a reverse proxy says of the request that came to it: the scheme and host that the client asked."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Forwarded:
    """ASGI middleware: puts X-Forwarded-Proto and X-Forwarded-Host in place of the connection's own scheme and Host, if
    the connection comes from a trusted proxy.

    trusted: addresses and CIDR, as the setting `trusted_proxies` has them. Where a header has several values the last
    is taken, the trusted proxy's own: those before it may be a client's invention.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self.app = app
        self._trusted = tuple(map(ip_network, trusted))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_trusted(scope):
            scope = _as_asked(scope)
        await self.app(scope, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        if not (self._trusted and scope.get("client")):
            return False
        try:
            address = ip_address(scope["client"][0])
        except ValueError:
            return False
        # A socket for both families shows IPv4 clients in IPv6's clothes.
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _as_asked(scope: Scope) -> Scope:
    said = Headers(scope=scope)
    scope = dict(scope)
    scheme = _last(said, "x-forwarded-proto").lower()
    if scheme in ("http", "https"):
        scope["scheme"] = scheme
    host = _last(said, "x-forwarded-host")
    if _HOST.fullmatch(host):
        MutableHeaders(scope=scope)["host"] = host
    return scope


def _last(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()
