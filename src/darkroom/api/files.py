"""Results by signed link: no key needed, and none in the link."""

import asyncio
import time

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from darkroom.api.answers import file_name
from darkroom.api.context import Serving, Signing
from darkroom.api.pictures import picture_path
from darkroom.errors import LinkExpired, UnknownRequest

router = APIRouter(prefix="/files")


class PictureResponse(FileResponse):
    """A file, whose refusals of a range are answered as every other error is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                headers = {name.decode(): value.decode() for name, value in message["headers"]}
                kept = {name: value for name, value in headers.items() if name == "content-range"}
                raise HTTPException(message["status"], "The Range header asks for nothing that is there", kept)
            await send(message)

        await super().__call__(scope, receive, send_unless_refused)


@router.api_route("/{job_id}/{file}", methods=["GET", "HEAD"])
async def picture(job_id: str, file: str, request: Request, service: Serving, links: Signing) -> Response:
    """Raises `LinkInvalid`, `LinkExpired`."""
    query, now = request.query_params, time.time()
    links.check(job_id, file, expires=query.get("expires", ""), signature=query.get("signature", ""), now=now)
    try:
        job = await service.job(job_id)
        path = await asyncio.to_thread(picture_path, job, service.blobs)
    except UnknownRequest as error:
        raise LinkExpired(f"{error.message}: its result has expired") from error
    etag = f'"{job_id}-{job.fence}"'
    headers = {
        "etag": etag,
        "cache-control": f"private, max-age={int(query['expires']) - int(now)}, immutable",
        "x-content-type-options": "nosniff",
    }
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return PictureResponse(
        path,
        headers=headers,
        media_type=job.edit.output.format.content_type,
        filename=file_name(job),
        content_disposition_type="inline",
    )
