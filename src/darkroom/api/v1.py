"""v1: one call, one picture. It is v2 with a wait: the same submit, and the job goes on without its client."""

import asyncio

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from darkroom.api import answers
from darkroom.api.context import Addresses, Caller, Located, Serving, own_job
from darkroom.api.model_route import ModelRoute
from darkroom.api.pictures import picture_base64, picture_bytes
from darkroom.api.submit import submit
from darkroom.api.v2 import result_of
from darkroom.errors import StillRunning
from darkroom.job import Job, State
from darkroom.ledger.contract import Accepted
from darkroom.service import Service

router = APIRouter(prefix="/v1", route_class=ModelRoute)


@router.get("/requests/{request_id}")
async def result(request_id: str, service: Serving, key: Caller, at: Located) -> Response:
    """The old name of v2's result."""
    job = await own_job(request_id, service=service, key=key)
    return await result_of(job, service=service, at=at)


@router.post("/{slug}")
async def edit(slug: str, request: Request, service: Serving, key: Caller, at: Located) -> Response:
    accepted = await submit(request, slug, service=service, key=key)
    job = await _ended(request, accepted, service=service, at=at)
    limits = answers.quota_headers(accepted.quota)
    if job.state == State.FAILED:
        return JSONResponse(answers.refused(job), answers.refused_status(job), limits)
    headers = answers.headers(job) | limits
    if job.edit.output.base64:
        encoded = await asyncio.to_thread(picture_base64, job, service.blobs)
        return JSONResponse(answers.inline(job, picture=encoded), headers=headers)
    picture = await asyncio.to_thread(picture_bytes, job, service.blobs)
    return Response(picture, media_type=job.edit.output.format.content_type, headers=headers)


async def _ended(request: Request, accepted: Accepted, *, service: Service, at: Addresses) -> Job:
    """Raises `StillRunning` when the wait is over, `ClientDisconnect` when nobody is there to wait any more."""
    job_id = accepted.job.id
    waiting = asyncio.create_task(service.wait(job_id, service.settings.v1_wait_s))
    leaving = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        job = waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()
    if not job.state.ended:
        raise StillRunning(f"Request {job_id} is still running and goes on; get its result at {at.response(job_id)}")
    return job


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
