"""Uploads: pictures sent once, to be named by their links in later requests. The path is the one the SDK calls."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from darkroom.api.body import read_json
from darkroom.api.context import Caller, Located, Serving
from darkroom.api.files import check_link, picture_response
from darkroom.blobs.names import upload_name
from darkroom.errors import LinkExpired
from darkroom.links import UPLOADS

router = APIRouter()


@router.post("/upload-asset")
async def upload(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    """A link for each of the data URLs, in their order. Raises `RequestError`."""
    params = await read_json(request, max_bytes=service.settings.max_body_bytes)
    uploads = await service.upload(params, key)
    return JSONResponse({"file_urls": [*map(at.upload, uploads)], "message": "Files uploaded successfully"})


@router.api_route("/uploads/{key_id}/{file}", methods=["GET", "HEAD"])
async def picture(key_id: str, file: str, request: Request, service: Serving) -> Response:
    """Raises `LinkInvalid`, `LinkExpired`."""
    expires_at = check_link(request, UPLOADS, key_id, file, links=service.links)
    try:
        path = await asyncio.to_thread(service.blobs.path, upload_name(key_id, file, expires_at=expires_at))
    except FileNotFoundError as error:
        raise LinkExpired("this upload has expired, and the picture is gone; send it again") from error
    return picture_response(
        request,
        path,
        etag=f'"{file}"',
        media_type=f"image/{file.rpartition('.')[2]}",
        file_name=file,
        expires_at=expires_at,
    )
