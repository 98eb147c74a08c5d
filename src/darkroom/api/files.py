"""Results by signed link: no key needed, and none in the link."""

import asyncio
import time
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from darkroom.api.answers import file_name
from darkroom.api.context import Serving
from darkroom.api.pictures import picture_path
from darkroom.errors import LinkExpired, RangeInvalid, UnknownRequest
from darkroom.links import FILES, Links

router = APIRouter(prefix="/files")


class PictureResponse(FileResponse):
    """A file, whose refusals of a range are answered as every other error is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                size_bytes = int(self.headers["content-length"])
                raise RangeInvalid(f"Range asks for nothing of the {size_bytes} bytes there are", size_bytes=size_bytes)
            await send(message)

        await super().__call__(scope, receive, send_unless_refused)


@router.api_route("/{job_id}/{file}", methods=["GET", "HEAD"])
async def picture(job_id: str, file: str, request: Request, service: Serving) -> Response:
    """Raises `LinkInvalid`, `LinkExpired`."""
    expires_at = check_link(request, FILES, job_id, file, links=service.links)
    try:
        job = await service.job(job_id)
        path = await asyncio.to_thread(picture_path, job, service.blobs)
    except UnknownRequest as error:
        raise LinkExpired(f"{error.message}: its result has expired") from error
    return picture_response(
        request,
        path,
        etag=f'"{job_id}-{job.fence}"',
        media_type=job.edit.output.format.content_type,
        file_name=file_name(job),
        expires_at=expires_at,
    )


def check_link(request: Request, kind: str, owner: str, file: str, *, links: Links) -> int:
    """When the request's link expires, in seconds since the epoch. Raises `LinkInvalid`, `LinkExpired`."""
    expires, signature = (request.query_params.get(name, "") for name in ("expires", "signature"))
    links.check(kind, owner, file, expires=expires, signature=signature, now=time.time())
    return int(expires)


def picture_response(
    request: Request, path: Path, *, etag: str, media_type: str, file_name: str, expires_at: int
) -> Response:
    """A kept picture, or 304 to a client that has it already."""
    headers = {
        "etag": etag,
        "cache-control": f"private, max-age={max(0, expires_at - int(time.time()))}, immutable",
        "x-content-type-options": "nosniff",
    }
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return PictureResponse(
        path, headers=headers, media_type=media_type, filename=file_name, content_disposition_type="inline"
    )
