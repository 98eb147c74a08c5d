import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from darkroom.errors import PictureUnreachable
from darkroom.fetch.guard import Fetcher
from darkroom.fetch.resolver import LOOKUPS, Resolver
from darkroom.fetch.transport import Transient, Transport

MANY = 3 * LOOKUPS


class Silence:
    """Name servers that answer nobody before the test is over. full: as many wait as may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.full, self.over = threading.Event(), threading.Event()

    def getaddrinfo(self, host: str, *_: object, **__: object) -> None:
        self.asked.append(host)
        if len(self.asked) == LOOKUPS:
            self.full.set()
        self.over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    silence = Silence()
    monkeypatch.setattr(socket, "getaddrinfo", silence.getaddrinfo)
    yield silence
    silence.over.set()


def through_transport() -> Callable[[str], Awaitable[None]]:
    transport = Transport(allow=())

    async def ask(url: str) -> None:
        with suppress(Transient):
            async with transport.get(url, {}):
                pass

    return ask


def through_fetcher() -> Callable[[str], Awaitable[None]]:
    fetcher = Fetcher(allow=(), max_bytes=1)

    async def ask(url: str) -> None:
        with suppress(PictureUnreachable):
            await fetcher.fetch(url, field="image")

    return ask


@pytest.mark.parametrize("way", [through_transport, through_fetcher])
def test_silent_name_servers_hold_up_nothing_else(
    silence: Silence, way: Callable[[], Callable[[str], Awaitable[None]]]
) -> None:
    """While any number of look-ups wait for an answer, what else is done in threads goes on, and only so many threads
    wait."""

    async def main() -> None:
        ask = way()
        asking = [asyncio.create_task(ask(f"http://a{number}.example/")) for number in range(MANY)]
        assert await asyncio.wait_for(asyncio.to_thread(silence.full.wait, 10), 10)
        assert len(silence.asked) == LOOKUPS
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(main())


def test_a_name_is_found_as_the_system_finds_it() -> None:
    """Every address of a name, with the port asked for."""
    found = asyncio.run(Resolver().resolve("localhost", 80))
    known = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    assert [(each["family"], each["host"], each["port"]) for each in found] == [
        (family, address[0], address[1]) for family, _, _, _, address in known
    ]


def test_a_name_that_is_not_there_is_an_oserror() -> None:
    """As aiohttp expects it."""
    with pytest.raises(socket.gaierror):
        asyncio.run(Resolver().resolve("nowhere.invalid"))
