"""A `darkroom serve` of one checkpoint, and edits by it: what is measured is what clients get."""

import asyncio
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from torch import Tensor

from darkroom.catalogue import read_catalogue
from darkroom.client import Client
from darkroom.job import State
from training.evaluation.scenes import to_image, to_tensor

_DARKROOM = Path(sys.executable).parent / "darkroom"
_START_S, _STOP_S, _EDIT_S = 300, 60, 300
_GREETINGS = {"Darkroom is ready on ": "url", "API key: ": "key"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """pictures: uint8, 3 × H × W. params: whatever else than prompt and pictures."""

    slug: str
    prompt: str
    pictures: tuple[Tensor, ...]
    params: Mapping[str, object] = field(default_factory=dict)


class Edits:
    """By the service, any number at once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._fields = {slug: card.pictures for slug, card in read_catalogue().items()}

    async def make(self, request: Request) -> Tensor:
        """The result's pixels. Raises RuntimeError when the job has failed, TimeoutError, `ServerRefused`,
        `ServerUnreachable`."""
        named = zip(self._fields[request.slug], request.pictures, strict=False)
        pictures = {name: _png(picture) for name, picture in named}
        params = {"prompt": request.prompt, "image_format": "png", **pictures, **request.params}
        async with asyncio.timeout(_EDIT_S):
            request_id = await self._client.submit(request.slug, params)
            async for status in self._client.watch(request_id):
                state = status.state
            result = await self._client.result(request_id)
            if state != State.COMPLETED:
                raise RuntimeError(f"{request.slug}: {result.failure or state}: {request.prompt}")
            data = await self._client.download(str(result.body["output"]))
        with Image.open(io.BytesIO(data)) as picture:
            return to_tensor(picture)


def _png(picture: Tensor) -> bytes:
    file = io.BytesIO()
    to_image(picture).save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def serving(checkpoint: Path, log: Path, *, fetch_allow: str) -> AsyncIterator[Edits]:
    """On a free port of the loopback, with data of its own that are forgotten afterwards.

    log: what the service says. fetch_allow: see that setting. Raises RuntimeError if it does not get ready.
    """
    with TemporaryDirectory() as data, log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(_DARKROOM, "serve", "--checkpoint", checkpoint, "--data", data, "--port", "0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"DARKROOM_FETCH_ALLOW": fetch_allow},
        )
        try:
            url, key = await _greeting(process, log)
            async with Client.connect(url, key=key) as client:
                yield Edits(client)
        finally:
            await _stop(process)


async def _greeting(process: asyncio.subprocess.Process, log: Path) -> tuple[str, str]:
    """Address and key."""
    said: dict[str, str] = {}
    assert process.stdout is not None  # noqa: S101  asked for
    try:
        async with asyncio.timeout(_START_S):
            while len(said) < len(_GREETINGS) and (line := (await process.stdout.readline()).decode()):
                said |= {name: line.split()[-1] for start, name in _GREETINGS.items() if line.startswith(start)}
    except TimeoutError:
        pass
    if len(said) < len(_GREETINGS):
        raise RuntimeError(f"the service did not get ready; its log says why: {log}")
    return said["url"], said["key"]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Says nothing: the service's own log does."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        # Whoever looks a file's header up hangs up before the rest.
        with suppress(ConnectionError):
            super().copyfile(source, outputfile)


@contextmanager
def offered(folder: Path) -> Iterator[str]:
    """The folder's files under an address on the loopback, as `host:port`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, name="files")
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
