"""Real servers on loopback: Darkroom itself in a thread of the test process, and one that pictures are fetched from."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import uvicorn
from PIL import Image

from darkroom.api.app import create_app
from darkroom.compose import build_service
from darkroom.keys import create_key
from darkroom.service import Service
from darkroom.settings import Settings

PATIENCE_S = 60

Beside = TypeVar("Beside", "Gallery", "Mailbox")


def picture(size=(96, 64)) -> bytes:
    """A small PNG with something on it."""
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return file.getvalue()


class Node:
    """A running service and its address. `call` speaks to it with a key."""

    def __init__(self, service: Service, url: str) -> None:
        self.service = service
        self.url = url

    def new_key(self, name: str, *, credits: float = 1000, **limits: Any) -> str:  # noqa: A002
        secret, _ = create_key(self.service.ledger, name=name, credits=credits, **limits)
        return secret

    def client(self, secret: str | None, **headers: str) -> httpx.Client:
        keyed = {} if secret is None else {"x-api-key": secret}
        return httpx.Client(base_url=self.url, headers=keyed | headers, timeout=PATIENCE_S)


@contextmanager
def serving(settings: Settings) -> Iterator[Node]:
    """Runs until the block is left, and then drains."""
    service = build_service(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
    thread.start()
    try:
        # The socket listens already: the first call waits in its backlog until the application is up.
        yield Node(service, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


def run(client: httpx.Client, params: dict[str, Any], *, slug: str = "qwen-image-edit-plus") -> dict[str, Any]:
    """Submit by v2 and wait: what the submit was answered with."""
    name = {"Idempotency-Key": secrets.token_hex()}
    submitted = client.post(f"/v2/{slug}", json=params, headers=name)
    assert submitted.status_code == 200, submitted.text
    # v1 is v2 and a wait, and the name makes it the same request.
    waited = client.post(f"/v1/{slug}", json=params, headers=name)
    assert waited.headers["x-request-id"] == submitted.json()["request_id"]
    return submitted.json()


def submit_running(client: httpx.Client, params: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to the submit of an edit of many steps, once it is being made."""
    params = {**params, "num_inference_steps": 100}
    submitted: dict[str, Any] = client.post("/v2/qwen-image-edit-plus", json=params).json()
    deadline = time.monotonic() + PATIENCE_S
    while client.get(submitted["status_url"]).json()["status"] == "QUEUED" and time.monotonic() < deadline:
        time.sleep(0.01)
    return submitted


class Gallery(ThreadingHTTPServer):
    """Serves a picture under every path, except /missing, and /held only once `open_gate` is set. /page is a web page,
    /huge a picture of six million pixels, /inside leads to another address of this machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hall)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.knocked = threading.Event()
        self.open_gate = threading.Event()

    def url(self, path: str = "photo.png") -> str:
        return f"http://{self.address}/{path}"


class _Hall(BaseHTTPRequestHandler):
    server: Gallery

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/inside":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/photo.png")
            self.end_headers()
            return
        if self.path == "/held":
            self.server.knocked.set()
            self.server.open_gate.wait(PATIENCE_S)
        data = b"<html>" if self.path == "/page" else picture((3000, 2000) if self.path == "/huge" else (96, 64))
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Says nothing: the tests' output is for the tests."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What a receiver was sent. headers: by lower-case name."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Mailbox(ThreadingHTTPServer):
    """A webhooks' receiver. answers: statuses for the next letters to a path, 204 when they are used up, 0 for none
    before `open_gate` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Slot)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, list[int]] = {}
        self.open_gate = threading.Event()
        self._letters: list[Letter] = []
        self._come = threading.Condition()

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def put(self, letter: Letter) -> None:
        with self._come:
            self._letters.append(letter)
            self._come.notify_all()

    def letters(self, path: str, count: int) -> list[Letter]:
        """The first so many to this path, once they have come."""

        def found() -> list[Letter]:
            return [letter for letter in self._letters if letter.path == path][:count]

        with self._come:
            assert self._come.wait_for(lambda: len(found()) == count, PATIENCE_S), f"{len(found())} letters to {path}"
            return found()


class _Slot(BaseHTTPRequestHandler):
    server: Mailbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.put(Letter(path=self.path, headers=headers, body=body))
        answers = self.server.answers.get(self.path) or [204]
        if not (status := answers.pop(0)):
            self.server.open_gate.wait(PATIENCE_S)
            return
        self.send_response(status)
        self.send_header("Location", self.server.url("/elsewhere"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing, as the gallery does."""


def hang_up(node: Node, secret: str, path: str, body: bytes, pictures: Gallery, **headers: str) -> None:
    """Ask for an edit of a held picture, and be gone once it is being fetched. The gate stays shut."""
    pictures.knocked.clear()
    pictures.open_gate.clear()
    fields = {"x-api-key": secret, "Content-Type": "application/json", "Content-Length": str(len(body))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((urlsplit(node.url).hostname, urlsplit(node.url).port)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body)
        assert pictures.knocked.wait(PATIENCE_S)


@contextmanager
def gallery() -> Iterator[Gallery]:
    with _open(Gallery()) as server:
        yield server


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    with _open(Mailbox()) as server:
        yield server


@contextmanager
def _open(server: Beside) -> Iterator[Beside]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="beside")
    thread.start()
    try:
        yield server
    finally:
        server.open_gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
