"""A real server on loopback that LoRA files are fetched from, with all that such hosts do, and do wrong."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save

PATIENCE_S = 20
PIECE_BYTES = 2**14


def lora_file(*, seed: int = 0, rank: int = 4, side: int = 64, modules: int = 2) -> bytes:
    """A sound LoRA, of a model of its own."""
    chance = np.random.default_rng(seed)
    tensors = {}
    for number in range(modules):
        name = f"transformer_blocks.{number}.attn.to_q"
        tensors[f"{name}.lora_A.weight"] = chance.standard_normal((rank, side), dtype=np.float32)
        tensors[f"{name}.lora_B.weight"] = chance.standard_normal((side, rank), dtype=np.float32)
    return save(tensors)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(kw_only=True)
class File:
    """etag, modified: None for a host that doesn't tell. ranges: whether it serves parts. heeds: whether it looks at
    If-Range. token: what it wants to be sent. length: what it says its length is, None for the truth, -1 for nothing.
    shift: how far behind what it was asked for a file's rest begins. most: bytes that it sends of a file's rest, None
    for all. stop_after: bytes after which it hangs up. gate: what it waits for in the middle of the body, after
    `gate_after` bytes. knocked: set when it does."""

    body: bytes = b""
    status: int = 200
    etag: str | None = None
    modified: str | None = None
    ranges: bool = True
    heeds: bool = True
    token: str | None = None
    length: int | None = None
    shift: int = 0
    most: int | None = None
    stop_after: int | None = None
    gate: threading.Event | None = None
    gate_after: int = PIECE_BYTES
    knocked: threading.Event = field(default_factory=threading.Event)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Question:
    path: str
    headers: dict[str, str]


class FileHost(ThreadingHTTPServer):
    """files: by path, without the slash before it. asked: all that has been. sent_bytes: of bodies, all told.

    By its other name, `hub`, it is Hugging Face.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Desk)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.base = f"http://{self.address}"
        self.hub_address = f"localhost:{self.server_address[1]}"
        self.hub = f"http://{self.hub_address}"
        self.files: dict[str, File] = {}
        self.asked: list[Question] = []
        self.sent_bytes = 0

    def put(self, path: str, body: bytes = b"", **rest: object) -> str:
        """Its address. Unless told otherwise it has an ETag."""
        self.files[path] = File(body=body, **{"etag": f'"{digest_of(body)[:16]}"', **rest})
        return f"{self.base}/{path}"

    def put_on_hub(self, repository: str, path: str, body: bytes, *, commit: str, revision: str = "main") -> None:
        """As Hugging Face has it: what is asked for by revision redirects to another place, and says what it is."""
        place = f"cdn/{digest_of(body)}"
        self.put(place, body)
        told = {
            "Location": f"/{place}",
            "x-repo-commit": commit,
            "x-linked-etag": f'"{digest_of(body)}"',
            "x-linked-size": str(len(body)),
        }
        for name in (revision, commit):
            self.put(f"{repository}/resolve/{name}/{path}", status=302, etag=None, headers=told)

    def handle_error(self, *_: object) -> None:
        """Clients hang up when they have seen enough."""


class _Desk(BaseHTTPRequestHandler):
    server: FileHost

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        self.server.asked.append(Question(path=path, headers=dict(self.headers.items())))
        file = self.server.files.get(path)
        if file is None:
            self._head(404, {})
        elif file.token and self.headers.get("Authorization") != f"Bearer {file.token}":
            self._head(401, {})
        elif file.status != 200:
            self._head(file.status, file.headers)
        elif self._has(file):
            self._head(304, self._told(file))
        else:
            self._serve(file)

    def _has(self, file: File) -> bool:
        return (file.etag is not None and self.headers.get("If-None-Match") == file.etag) or (
            file.modified is not None and self.headers.get("If-Modified-Since") == file.modified
        )

    def _told(self, file: File) -> dict[str, str]:
        told = {"ETag": file.etag, "Last-Modified": file.modified}
        return {name: value for name, value in told.items() if value} | file.headers

    def _serve(self, file: File) -> None:
        body, status, headers = file.body, 200, self._told(file)
        same = not file.heeds or self.headers.get("If-Range") in (None, file.etag, file.modified)
        wanted = self.headers.get("Range", "") if same else ""
        if file.ranges and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            begin, end = int(match[1]), min(int(match[2]) + 1 if match[2] else len(body), len(body))
            if not match[2]:
                begin, end = begin + file.shift, end if file.most is None else begin + file.most
            if begin >= len(body):
                self._head(416, headers)
                return
            status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{len(body)}"
            body = body[begin:end]
        length = len(body) if file.length is None or status == 206 else file.length
        if length >= 0:
            headers["Content-Length"] = str(length)
        self._head(status, headers)
        self._send(file, body)

    def _send(self, file: File, body: bytes) -> None:
        for begin in range(0, len(body), PIECE_BYTES):
            if file.gate and begin >= file.gate_after:
                file.knocked.set()
                file.gate.wait(PATIENCE_S)
            if file.stop_after is not None and begin >= file.stop_after:
                break
            piece = body[begin : begin + PIECE_BYTES]
            self.wfile.write(piece)
            self.server.sent_bytes += len(piece)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing: the tests' output is for the tests."""


@contextmanager
def file_host() -> Iterator[FileHost]:
    server = FileHost()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="file host")
    thread.start()
    try:
        yield server
    finally:
        for file in server.files.values():
            if file.gate:
                file.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
