import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from structlog.testing import capture_logs

from darkroom.cli import server
from darkroom.cli.making import LOCAL_KEY, local_key
from darkroom.cli.server import NO_ACCEPT, LoopErrors, Protocol, first_key
from darkroom.keys import create_key, digest
from darkroom.settings import read_settings
from darkroom.stores import open_ledger

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(server, "HEAD_S", 0.3)


async def slow(scope, receive, send):
    """Answers after longer than a head may take."""
    await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of `slow`."""
    config = uvicorn.Config(slow, http=Protocol, lifespan="off", log_config=None)
    uvicorn_server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(uvicorn_server._serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            async with asyncio.timeout(20):
                yield reader, writer
        finally:
            writer.close()
            uvicorn_server.should_exit = True
            await serving


async def drip(writer):
    """A head that never ends."""
    while not writer.is_closing():
        writer.write(b"X")
        await asyncio.sleep(0.05)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "next"])
def test_a_head_that_does_not_come_ends_the_connection(before):
    """Whether the client says nothing or says it for ever, at first or after a request."""

    async def main():
        async with connected() as (reader, writer):
            if before:
                writer.write(before)
                assert b"204" in await reader.readuntil(b"\r\n\r\n")
            dripping = asyncio.create_task(drip(writer))
            assert await reader.read() == b""
            dripping.cancel()

    asyncio.run(main())


@pytest.mark.usefixtures("hurried")
def test_a_silent_connection_is_ended():
    """Nothing at all is no head either."""

    async def main():
        async with connected() as (reader, _):
            assert await reader.read() == b""

    asyncio.run(main())


def test_serve_ends_silent_connections(tmp_path):
    """It is what `run` serves with, before the model is there already."""
    program = (
        "import asyncio\n"
        "from darkroom.cli import listener, server\n"
        "from darkroom.settings import read_settings\n"
        "server.HEAD_S = 0.3\n"
        "with listener.listen('127.0.0.1', 0) as listening:\n"
        "    print(listening.getsockname()[1], flush=True)\n"
        "    asyncio.run(server.run(read_settings(), listening))\n"
    )
    env = os.environ | {"DARKROOM_DATA": str(tmp_path), "DARKROOM_CHECKPOINT": "/nowhere"}
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as serving:
        with socket.create_connection(("127.0.0.1", int(serving.stdout.readline())), timeout=60) as silent:
            assert silent.recv(1) == b""
        serving.terminate()
        serving.communicate(timeout=60)
    assert serving.returncode == 0


@pytest.mark.usefixtures("hurried")
def test_an_answer_may_take_longer_than_a_head():
    """Also on a connection that has had one before, and where the head came in parts."""

    async def main():
        async with connected() as (reader, writer):
            for _ in range(2):
                for part in (GET[:9], GET[9:]):
                    writer.write(part)
                    await asyncio.sleep(0.1)
                assert b"204" in await reader.readuntil(b"\r\n\r\n")

    asyncio.run(main())


def test_connections_that_cannot_be_accepted_do_not_fill_the_log(monkeypatch):
    """What the loop says of them many times a second is passed on once a minute, and whatever else it says as ever."""
    now, errors, others = [1000.0], LoopErrors(), []
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "time", lambda: now[0])
    monkeypatch.setattr(loop, "default_exception_handler", others.append)
    loop.set_exception_handler(errors)
    with capture_logs() as logs:
        for _ in range(180):
            for _ in range(100):
                loop.call_exception_handler({"message": NO_ACCEPT, "exception": OSError(errno.EMFILE, "Too many")})
            now[0] += 1
        loop.call_exception_handler({"message": "x"})
    loop.close()
    assert len(logs) == 3
    assert "Too many" in logs[0]["error"]
    assert others == [{"message": "x"}]


def test_as_many_files_as_may_be():
    """The limit on open files is raised to what this process may have."""
    program = (
        "import resource; from darkroom.cli.server import allow_many_files\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))\n"
        "allow_many_files()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    soft, hard = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_the_first_key_is_made_once():
    """Only a ledger that has had no client's key gets one; a revoked one counts, this machine's own does not."""
    ledger = open_ledger(read_settings())
    local_key(ledger)
    secret = first_key(ledger)
    assert ledger.find_key(digest(secret)).name == "first"
    assert first_key(ledger) is None
    ledger.revoke_key("first")
    assert first_key(ledger) is None
    ledger.close()


def test_the_local_key_is_made_when_missing():
    """Edits in this process share one key, which comes back after it was revoked."""
    ledger = open_ledger(read_settings())
    create_key(ledger, name="other", credits=1)
    key = local_key(ledger)
    assert key.name == LOCAL_KEY
    assert local_key(ledger) == key
    ledger.revoke_key(LOCAL_KEY)
    assert local_key(ledger).id != key.id
    ledger.close()
