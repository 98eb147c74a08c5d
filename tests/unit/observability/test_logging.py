import io
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import structlog

from darkroom.observability.logging import configure

# A real server, logging as the service does, that answers one request and stops.
SERVER = """
import asyncio, socket, sys
import structlog, uvicorn
from darkroom.observability.logging import configure

async def app(scope, receive, send):
    with structlog.contextvars.bound_contextvars(request_id=dict(scope["headers"])[b"x-id"].decode()):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    server.should_exit = True

configure("json")
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
asyncio.run(server.serve(sockets=[listening]))
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line() -> None:
    """A line is one JSON object with time, level, logger and event, what was bound, and what was said beside it."""
    stream = io.StringIO()
    configure("json", stream=stream)
    before = datetime.now(UTC)
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("darkroom.test").info("job accepted", slug="ünïcode", size_bytes=3)
    structlog.get_logger().warning("outside")
    first, second = lines(stream)
    assert before <= datetime.fromisoformat(first.pop("timestamp")) <= datetime.now(UTC)
    assert first == {
        "level": "info",
        "logger": "darkroom.test",
        "event": "job accepted",
        "request_id": "r-1",
        "slug": "ünïcode",
        "size_bytes": 3,
    }
    assert second["event"] == "outside"
    assert "request_id" not in second


def test_library_lines_are_alike() -> None:
    """A record of the standard library's logging gets the same form, its arguments, extras and the bound context."""
    stream = io.StringIO()
    configure("json", stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        logging.getLogger("library").error("%s of %d", "two", 3, extra={"size_px": 9, "color_message": "\x1b[31m"})
    (line,) = lines(stream)
    del line["timestamp"]
    assert line == {"level": "error", "logger": "library", "event": "two of 3", "request_id": "r-1", "size_px": 9}


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["own debug", "own info", "own error", "library info", "chatty warning"]),
        ("info", ["own info", "own error", "library info", "chatty warning"]),
        ("warning", ["own error", "chatty warning"]),
        ("error", ["own error"]),
    ],
)
def test_levels(level: Literal["debug", "info", "warning", "error"], written: list[str]) -> None:
    """The level asked for and above is written, of libraries that speak of every connection warnings alone."""
    stream = io.StringIO()
    configure("json", level=level, stream=stream)
    structlog.get_logger("darkroom").debug("own debug")
    structlog.get_logger("darkroom").info("own info")
    structlog.get_logger("darkroom").error("own error")
    logging.getLogger("library").info("library info")
    logging.getLogger("httpx").info("chatty info")
    logging.getLogger("httpx").warning("chatty warning")
    assert [line["event"] for line in lines(stream)] == written


def test_configured_twice_writes_once() -> None:
    """A second configuration replaces the first."""
    first, second = io.StringIO(), io.StringIO()
    configure("json", stream=first)
    configure("json", stream=second)
    structlog.get_logger("darkroom").info("once")
    assert not first.getvalue()
    assert len(lines(second)) == 1


@pytest.mark.parametrize("log_format", ["json", "console", "terminal"])
def test_exceptions_without_what_variables_hold(log_format: str) -> None:
    """A traceback names places and the error, and none of the values at hand."""
    stream = Terminal() if log_format == "terminal" else io.StringIO()
    configure("json" if log_format == "json" else "console", stream=stream)

    def fail(secret: str) -> None:
        raise RuntimeError("no good" if secret else "")

    try:
        fail("terc3s"[::-1])
    except RuntimeError:
        structlog.get_logger("darkroom").exception("job failed")
        logging.getLogger("library").exception("library failed")
    text = stream.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).count("RuntimeError: no good") == 2
    assert "in fail" in text
    assert "s3cret" not in text
    if log_format == "json":
        assert [line["exception"].splitlines()[0] for line in lines(stream)] == [
            "Traceback (most recent call last):"
        ] * 2


def test_colour_on_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Console lines have terminal codes on a terminal that wants them, and only there."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(stream: io.StringIO) -> str:
        configure("console", stream=stream)
        with structlog.contextvars.bound_contextvars(request_id="r-1"):
            structlog.get_logger("darkroom").info("hello", size_px=3)
        return stream.getvalue()

    plain = shown(io.StringIO())
    assert re.search(r"\[info +\] hello +\[darkroom\] request_id=r-1 size_px=3\n$", plain)
    assert "\x1b[" not in plain
    assert "\x1b[" in shown(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in shown(Terminal())


def test_threads_have_their_own_context() -> None:
    """What one thread binds does not reach the lines of another."""
    stream = io.StringIO()
    configure("json", stream=stream)
    bound = threading.Barrier(2)

    def work(name: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=name):
            bound.wait(timeout=10)
            structlog.get_logger("darkroom").info(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted((line["event"], line["request_id"]) for line in lines(stream)) == [("a", "a"), ("b", "b")]


def test_warnings_are_lines() -> None:
    """A Python warning does not break the form: it is a line too."""
    code = (
        'import warnings; from darkroom.observability.logging import configure; configure("json"); warnings.warn("old")'
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    line = json.loads(ended.stderr)
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "UserWarning: old" in line["event"]
    assert not ended.stdout


def test_nothing_on_import() -> None:
    """Importing the module leaves the process's logging alone."""
    code = "import logging; import darkroom.observability.logging; assert not logging.getLogger().handlers"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_access_lines_have_the_request_id() -> None:
    """Uvicorn's own line about a request carries what the application bound for it."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            with socket.create_connection(("127.0.0.1", int(server.stdout.readline())), timeout=20) as connection:
                connection.sendall(b"GET /path HTTP/1.1\r\nHost: x\r\nX-Id: r-7\r\nConnection: close\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            _, errors = server.communicate(timeout=20)
        finally:
            server.kill()
    said = [json.loads(line) for line in errors.splitlines()]
    (access,) = [line for line in said if line["logger"] == "uvicorn.access"]
    assert access["request_id"] == "r-7"
    assert '"GET /path HTTP/1.1" 200' in access["event"]
    assert not any("request_id" in line for line in said if line["logger"] == "uvicorn.error")


def test_what_a_client_sent_does_not_steer_the_terminal() -> None:
    """Control characters stand in a line as Python writes them; text of any language as it is."""
    stream = io.StringIO()
    configure("console", stream=stream)
    structlog.get_logger().info("request", path="/\x1b[2J\x07\r\x9b", name="镜头 été")
    assert not re.search(r"[^\n -~\u00a0-\U0010ffff]", stream.getvalue())
    assert r"/\x1b[2J\x07\r\x9b" in stream.getvalue()
    assert "镜头 été" in stream.getvalue()
