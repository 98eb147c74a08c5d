"""Sending to an address that a stranger chose: as guarded as fetching from one."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from darkroom.fetch.transport import Refused, Transient, Transport
from unit.fetch.test_guard import Names

BODY = b'{"type": "request.completed"}'


def post(*, to: str = "127.0.0.1", status: int = 204, allowed: bool = True) -> tuple[object, list[web.Request]]:
    """What comes of a message to a receiver on loopback that goes by the name `to`: the status or the error, and the
    requests that it was sent."""
    met: list[web.Request] = []

    async def receive(request: web.Request) -> web.Response:
        met.append(request)
        await request.read()
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def run() -> object:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", receive)
        async with TestServer(app) as server:
            allow = (f"{to}:{server.port}",) if allowed else ()
            transport = Transport(allow=allow, resolver=lambda: Names("127.0.0.1"))
            try:
                return await transport.post(f"http://{to}:{server.port}/hook?a=1", BODY, {"webhook-id": "msg_1"})
            except (Refused, Transient) as error:
                return error

    return asyncio.run(run()), met


def test_the_body_arrives_as_it_is():
    """By POST, at the path and query, with the headers that were given."""
    status, (request,) = post()
    assert status == 204
    assert (request.method, request.path_qs, request.headers["webhook-id"]) == ("POST", "/hook?a=1", "msg_1")
    assert request._read_bytes == BODY


@pytest.mark.parametrize("status", [302, 307, 400, 429, 500])
def test_any_status_is_the_answer(status):
    """Once: nothing is tried again here, and no redirect is gone after."""
    answer, met = post(status=status)
    assert (answer, len(met)) == (status, 1)


@pytest.mark.parametrize("to", ["127.0.0.1", "rebinding.example.com"])
def test_what_is_not_public_is_not_sent_to(to):
    """Whether the address says so itself, or its name resolves to such a place as the socket is opened."""
    answer, met = post(to=to, allowed=False)
    assert isinstance(answer, Refused)
    assert "not public" in str(answer)
    assert met == []
