"""What an endpoint is handed: the service, the caller's key, and the addresses to answer with."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

import structlog
from fastapi import Depends
from starlette.requests import Request

from darkroom.errors import InvalidKey, MissingKey, UnknownRequest
from darkroom.job import Job
from darkroom.ledger.contract import Key
from darkroom.links import FILES, UPLOADS, Links
from darkroom.service import Service
from darkroom.uploads import Upload

BEARER = "bearer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Where jobs and pictures are found: absolute URLs on the host that clients reach this server under."""

    base: str
    links: Links

    def poll(self, job_id: str) -> str:
        return f"{self.base}/v1/requests/{job_id}"

    def status(self, job_id: str) -> str:
        return f"{self.response(job_id)}/status"

    def response(self, job_id: str) -> str:
        return f"{self.base}/v2/requests/{job_id}"

    def file(self, job_id: str, file: str, *, expires_at: float) -> str:
        return self.base + self.links.path(FILES, job_id, file, expires_at=expires_at)

    def upload(self, upload: Upload) -> str:
        return self.base + self.links.path(UPLOADS, upload.key_id, upload.file, expires_at=upload.expires_at)


async def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


Serving = Annotated[Service, Depends(_service)]


async def _addresses(request: Request, service: Serving) -> Addresses:
    base = service.settings.public_url or str(request.base_url)
    return Addresses(base=base.rstrip("/"), links=service.links)


async def _caller(request: Request, service: Serving) -> Key:
    """Raises `MissingKey`, `InvalidKey`."""
    key = await asyncio.to_thread(service.key, secret_of(request))
    structlog.contextvars.bind_contextvars(key=key.name)
    return key


def secret_of(request: Request) -> str:
    """The key's secret as the request's headers have it. Raises `MissingKey`, `InvalidKey`."""
    if secret := request.headers.get("x-api-key", "").strip():
        return secret
    authorization = request.headers.get("authorization", "").strip()
    if not authorization:
        raise MissingKey("Missing Authorization or x-api-key in header")
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != BEARER or not secret.strip():
        raise InvalidKey("Unauthorized. API key is invalid or may have expired.")
    return secret.strip()


Located = Annotated[Addresses, Depends(_addresses)]
Caller = Annotated[Key, Depends(_caller)]


async def own_job(request_id: str, *, service: Service, key: Key) -> Job:
    """Raises `UnknownRequest`, also for another key's job: whether it exists is not this key's to know."""
    job = await service.job(request_id)
    if job.key_id != key.id:
        raise UnknownRequest(request_id)
    return job
