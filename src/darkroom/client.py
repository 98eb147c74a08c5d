"""A small client of a Darkroom server: submit, follow, fetch, cancel. `darkroom edit --server` stands on it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from darkroom.errors import ServerRefused, ServerUnreachable
from darkroom.job import Failure, Progress, Stage, State

POLL_S = 0.25
PATIENCE_S = 30
"""How long a server may be away, restarting say, before a job on it is given up."""
TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=5, sock_read=60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a request is. failure: set when FAILED; body: the answer as it came."""

    state: State
    progress: Progress | None
    failure: Failure | None
    body: Mapping[str, Any]


class Client:
    """Calls to one server under one key. Every method raises `ServerUnreachable` or `ServerRefused`."""

    def __init__(self, session: aiohttp.ClientSession, *, server: str, key: str) -> None:
        self._session = session
        self._server = server.rstrip("/")
        self._key = key

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: str, *, key: str) -> AsyncIterator[Self]:
        """server: the address it is reached under, such as http://127.0.0.1:8000."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            yield cls(session, server=server, key=key)

    async def submit(self, slug: str, params: Mapping[str, object]) -> str:
        """Queue an edit; its request id. Bytes go as file parts, None is left out, the rest as text."""
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in params.items():
            if isinstance(value, bytes):
                form.add_field(name, value, filename=name, content_type="application/octet-stream")
            elif value is not None:
                form.add_field(name, json.dumps(value) if isinstance(value, bool) else str(value))
        body = await self._json("POST", f"{self._server}/v2/{slug}", data=form)
        return str(body["request_id"])

    async def status(self, request_id: str) -> Status:
        return _status(await self._json("GET", f"{self._server}/v2/requests/{request_id}/status"))

    async def result(self, request_id: str) -> Status:
        return _status(await self._json("GET", f"{self._server}/v2/requests/{request_id}"))

    async def watch(self, request_id: str) -> AsyncIterator[Status]:
        """The request as it is, again and again until it has ended. Bears with a server that is away for a while."""
        heard_at = time.monotonic()
        while True:
            try:
                status = await self.status(request_id)
            except ServerUnreachable:
                if time.monotonic() - heard_at > PATIENCE_S:
                    raise
            else:
                heard_at = time.monotonic()
                yield status
                if status.state.ended:
                    return
            await asyncio.sleep(POLL_S)

    async def cancel(self, request_id: str) -> Status:
        return _status(await self._json("DELETE", f"{self._server}/v2/requests/{request_id}"))

    async def download(self, url: str) -> bytes:
        """A finished picture from where the result says it lies. The key goes to this server only."""
        own = urlsplit(url)[:2] == urlsplit(self._server)[:2]
        async with self._call("GET", url, keyed=own) as response:
            data = await response.read()
            if not response.ok:
                raise _refusal(response, data)
            return data

    async def _json(self, method: str, url: str, *, data: aiohttp.FormData | None = None) -> dict[str, Any]:
        """One exchange. A failed job is an answer here, whatever status it comes under."""
        async with self._call(method, url, data=data) as response:
            text = await response.read()
            body = _object(text)
            if body.keys() >= {"status", "request_id"} and (response.ok or body["status"] == State.FAILED):
                return body
            raise _refusal(response, text)

    @asynccontextmanager
    async def _call(
        self, method: str, url: str, *, data: aiohttp.FormData | None = None, keyed: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"x-api-key": self._key} if keyed else {}
        try:
            async with self._session.request(method, url, data=data, headers=headers) as response:
                yield response
        except aiohttp.InvalidURL as error:
            raise ServerUnreachable(f"{url} is not an address; a server's is like http://127.0.0.1:8000") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable(
                f"no answer from {self._server} ({str(error) or type(error).__name__}): is `darkroom serve` running "
                "there?"
            ) from error


def _status(body: Mapping[str, Any]) -> Status:
    state = State(body["status"])
    progress = body.get("progress")
    return Status(
        state=state,
        progress=progress and Progress(stage=Stage(progress["stage"]), step=progress["step"], steps=progress["steps"]),
        failure=Failure(code=body.get("code", "failed"), message=str(body.get("error")), field=body.get("field"))
        if state == State.FAILED
        else None,
        body=body,
    )


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object in an answer; an empty one if it is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(response: aiohttp.ClientResponse, text: bytes) -> ServerRefused:
    body = _object(text)
    message = body.get("error") or f"{response.reason or 'no reason given'}; is this a Darkroom server?"
    return ServerRefused(f"{response.url.origin()} answered {response.status}: {message}", field=body.get("field"))
