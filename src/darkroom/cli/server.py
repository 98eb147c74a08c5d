"""The served process: a socket, uvicorn on it, and what is said once the model is loaded."""

import asyncio
import contextlib
import math
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from darkroom.api.app import create_app
from darkroom.cli.console import note, say
from darkroom.cli.keys import FIRST_CREDITS
from darkroom.cli.listener import BACKLOG, url_of
from darkroom.cli.making import LOCAL_KEY
from darkroom.compose import build_service
from darkroom.keys import create_key
from darkroom.ledger.contract import Ledger
from darkroom.observability import logging
from darkroom.occupancy import occupy
from darkroom.service import Service
from darkroom.settings import Settings
from darkroom.worker.supervisor import Readiness

FIRST_KEY = "first"
CLOSING_S = 5
"""How long open connections may take to end once the worker has drained."""
LOOK_S = 0.1
"""How often a starting worker's health is looked at."""
FORCED = 130
"""Exit status when a second Ctrl-C cut the draining short."""
HEAD_S = 15
"""How long a client may take to send a request's head."""
NO_ACCEPT = "socket.accept() out of system resource"
"""What asyncio says, many times a second, while there is no file descriptor for another connection."""
NO_ACCEPT_S = 60
"""Seconds between two times that it is passed on."""
THREADS = 64
"""For calls that block."""

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, which on a signal also calls `drain`: jobs and connections then end side by side."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            # As good as a crash, which the ledger bears with: the worker sees that it is alone and gives its job back.
            note("darkroom: stopped at once; the running job goes back to the queue")
            os._exit(FORCED)
        if sig == signal.SIGINT:
            note("darkroom: stopping when the running job has ended; Ctrl-C again stops at once")
        super().handle_exit(sig, frame)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for good. uvicorn would raise them again once it is done, and die of them."""
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, self.handle_exit)
        yield


class Protocol(H11Protocol):
    """uvicorn's, which also ends a connection whose client says nothing, or takes for ever to."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_due = self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_due.cancel()
        elif self._head_due.cancelled():
            self._head_due = self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_due.cancel()

    def _await_head(self) -> asyncio.TimerHandle:
        return self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)


class LoopErrors:
    """An event loop's exception handler: its own, but for what would fill the log."""

    def __init__(self) -> None:
        self._quiet_until = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context["message"] != NO_ACCEPT:
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + NO_ACCEPT_S
            log.error("no connection can be accepted", error=str(context.get("exception")))


def allow_many_files() -> None:
    """As many open files, and so connections, as this process may have; the usual limit is far lower."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit and takes no such number.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def run(settings: Settings, listener: socket.socket) -> None:
    """Serve on the socket until a signal says stop, and drain. Raises `SetupError`."""
    logging.configure(settings.log_format, level=settings.log_level)
    allow_many_files()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    # A few calls that have to wait for the ledger must not hold up the others.
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="service"))
    service = build_service(settings)
    config = uvicorn.Config(
        create_app(service),
        http=Protocol,
        backlog=BACKLOG,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # uvicorn's own trusts all of the machine; see api/forwarded.py
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + CLOSING_S,
    )
    server = Server(config, drain=service.drain)
    announcing = asyncio.create_task(announce(service, url_of(settings.host, listener)), name="announce")
    try:
        with occupy(settings):
            await server.serve(sockets=[listener])
    finally:
        announcing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await announcing


async def announce(service: Service, url: str) -> None:
    """Say where the service is once its worker is ready, and a first key if there is none; until then, why not."""
    said: str | None = None
    while service.health.state != Readiness.READY:
        health = service.health
        if health.state == Readiness.STOPPING:
            return
        if health.reason is not None and health.reason != said:
            note(f"darkroom: not ready: {health.reason}")
            note(f"darkroom: trying again; {url}/health/ready says when it is")
            said = health.reason
        await asyncio.sleep(LOOK_S)
    secret = await asyncio.to_thread(first_key, service.ledger)
    # The line that tells a script to go on comes after the one it will need.
    if secret:
        say(f"API key: {secret}")
    say(f"Darkroom is ready on {url}")
    if secret:
        say("The key is shown only this once; `darkroom keys create NAME` makes more. Try it:")
        say(f"  curl {url}/v1/qwen-image-edit-plus -H 'x-api-key: {secret}' \\")
        say("    -F image=@samples/ball.png -F prompt='Make the ball red' -F image_format=png -o edited.png")


def first_key(ledger: Ledger) -> str | None:
    """A key for a ledger that has had none yet, not counting the one for this machine's own edits."""
    if any(key.name != LOCAL_KEY for key in ledger.keys()):  # noqa: SIM118  no mapping
        return None
    secret, _ = create_key(ledger, name=FIRST_KEY, credits=FIRST_CREDITS)
    return secret
