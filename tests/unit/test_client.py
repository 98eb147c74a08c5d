import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from darkroom import client as module
from darkroom.client import Client
from darkroom.errors import ServerRefused, ServerUnreachable
from darkroom.job import Progress, Stage, State

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def talking_to(handler: Handler, **routes: Handler) -> AsyncIterator[Client]:
    """A client of a real server on loopback that answers everything by `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with (
        TestServer(app) as server,
        Client.connect(f"http://127.0.0.1:{server.port}/", key="dk_x") as client,
    ):
        yield client


def answering(*answers: tuple[int, dict]) -> Handler:
    """Gives these answers one after the other, the last one for ever."""
    left = list(answers)

    async def handler(_: web.Request) -> web.Response:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return web.json_response(body, status=status)

    return handler


def test_submit_sends_files_and_text():
    """Bytes travel as file parts, the rest as the text that the API reads, and None not at all."""
    seen = {}

    async def handler(request):
        seen["path"], seen["key"] = request.path, request.headers["x-api-key"]
        async for part in await request.multipart():
            seen[part.name] = (bool(part.filename), bytes(await part.read()))
        return web.json_response({"request_id": "r1", "status": "QUEUED"})

    async def main():
        async with talking_to(handler) as client:
            params = {"image": b"\x89PNG", "prompt": "make it ü", "seed": 7, "go_fast": True, "quality": None}
            return await client.submit("a-slug", params)

    assert asyncio.run(main()) == "r1"
    assert seen == {
        "path": "/v2/a-slug",
        "key": "dk_x",
        "image": (True, b"\x89PNG"),
        "prompt": (False, "make it ü".encode()),
        "seed": (False, b"7"),
        "go_fast": (False, b"true"),
    }


def test_watch_ends_with_the_job(monkeypatch):
    """Watching gives the progress on the way and stops at the end, which may be a failure under 422."""
    monkeypatch.setattr(module, "POLL_S", 0)
    handler = answering(
        (200, {"status": "QUEUED", "request_id": "r1"}),
        (
            200,
            {"status": "PROCESSING", "request_id": "r1", "progress": {"stage": "denoise", "step": 3, "steps": 8}},
        ),
        (422, {"status": "FAILED", "request_id": "r1", "error": "image: not a picture", "code": "image_invalid"}),
    )

    async def main():
        async with talking_to(handler) as client:
            return [status async for status in client.watch("r1")]

    queued, running, failed = asyncio.run(main())
    assert (queued.state, queued.progress) == (State.QUEUED, None)
    assert running.progress == Progress(stage=Stage.DENOISE, step=3, steps=8)
    assert failed.failure.message == "image: not a picture"
    assert failed.failure.code == "image_invalid"


def test_a_server_may_be_away_for_a_while(monkeypatch):
    """A restart of the server does not end the watching; one that is away for too long does."""
    monkeypatch.setattr(module, "POLL_S", 0)
    calls = 0

    async def handler(request):
        nonlocal calls
        calls += 1
        if calls < 4:
            request.transport.abort()
        return web.json_response({"status": "COMPLETED", "request_id": "r1"})

    async def main():
        async with talking_to(handler) as client:
            return [status.state async for status in client.watch("r1")]

    assert asyncio.run(main()) == [State.COMPLETED]
    calls = -(10**9)
    monkeypatch.setattr(module, "PATIENCE_S", 0)
    with pytest.raises(ServerUnreachable):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, '{"error": "seed must be whole", "field": "seed"}', "answered 400: seed must be whole"),
        (404, "<html>nothing here</html>", "answered 404: Not Found; is this a Darkroom server"),
        (200, "<html>welcome</html>", "answered 200: OK; is this a Darkroom server"),
        (200, '{"hello": "world"}', "is this a Darkroom server"),
        (500, "[1]", "answered 500"),
    ],
)
def test_refusals_say_what_the_server_said(status, body, said):
    """An error is the server's own text; an answer from something else is said to be that."""

    async def handler(_):
        return web.Response(status=status, text=body)

    async def main():
        async with talking_to(handler) as client:
            await client.status("r1")

    with pytest.raises(ServerRefused, match="answered") as caught:
        asyncio.run(main())
    assert said in caught.value.message
    assert caught.value.field == ("seed" if status == 400 else None)


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "nonsense", "http://"])
def test_no_server_is_said_with_the_remedy(server):
    """Nobody at the address, or no address at all, is one error that names it."""

    async def main():
        async with Client.connect(server, key="k") as client:
            await client.status("r1")

    with pytest.raises(ServerUnreachable) as caught:
        asyncio.run(main())
    assert server in caught.value.message


def test_the_key_goes_to_its_own_server_only():
    """A result that lies elsewhere is fetched without the key."""
    keys = []

    async def handler(request):
        keys.append(request.headers.get("x-api-key"))
        return web.Response(body=b"picture")

    async def main():
        async with talking_to(handler) as client, talking_to(handler) as other:
            assert await client.download(f"{client._server}/files/1") == b"picture"
            assert await client.download(f"{other._server}/files/1") == b"picture"

    asyncio.run(main())
    assert keys == ["dk_x", None]


def test_cancel_asks_the_server():
    """Cancelling is a DELETE of the request, fine whether it has ended by then or will."""
    seen = []

    async def handler(request):
        seen.append((request.method, request.path))
        return web.json_response({"status": "PROCESSING", "request_id": "r1"}, status=202)

    async def main():
        async with talking_to(handler) as client:
            return await client.cancel("r1")

    assert asyncio.run(main()).state is State.PROCESSING
    assert seen == [("DELETE", "/v2/requests/r1")]
