import asyncio

import pytest
from starlette.types import Scope

from darkroom.api.forwarded import Forwarded

TRUSTED = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


def seen(client: tuple[str, int] | None) -> Scope:
    """The scope that the application gets for a request from there."""
    found: list[Scope] = []

    async def app(scope: Scope, receive, send) -> None:
        found.append(scope)

    headers = [(b"host", b"inside"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"outside")]
    scope = {"type": "http", "scheme": "http", "client": client, "headers": headers}
    asyncio.run(Forwarded(app, trusted=TRUSTED)(scope, None, None))
    assert headers[0] == (b"host", b"inside")
    return found[0]


@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3"])
def test_a_trusted_address(address: str) -> None:
    """By itself, by its network, and on a socket for both families."""
    scope = seen((address, 1))
    assert scope["scheme"] == "https"
    assert dict(scope["headers"])[b"host"] == b"outside"


@pytest.mark.parametrize("client", [("192.0.2.8", 1), ("::1", 1), ("", 1), ("unix", 1), None])
def test_any_other(client: tuple[str, int] | None) -> None:
    """Is not believed, nor one without an address."""
    scope = seen(client)
    assert scope["scheme"] == "http"
    assert dict(scope["headers"])[b"host"] == b"inside"
