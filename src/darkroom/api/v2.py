"""v2: submit, ask how it is, get the result, cancel."""

import asyncio
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from darkroom.api import answers
from darkroom.api.context import Addresses, Caller, Located, Serving, own_job
from darkroom.api.model_route import ModelRoute
from darkroom.api.pictures import picture_base64
from darkroom.api.submit import submit
from darkroom.job import Job, State
from darkroom.service import Service

router = APIRouter(prefix="/v2", route_class=ModelRoute)


@router.post("/{slug}")
async def edit(slug: str, request: Request, service: Serving, key: Caller, at: Located) -> Response:
    accepted = await submit(request, slug, service=service, key=key)
    return JSONResponse(answers.submitted(accepted.job, at), headers=answers.quota_headers(accepted.quota))


@router.get("/requests/{request_id}/status")
async def status(request_id: str, service: Serving, key: Caller, at: Located) -> Response:
    job = await own_job(request_id, service=service, key=key)
    return JSONResponse(answers.status(job, at), _http_status(job))


@router.get("/requests/{request_id}")
async def result(request_id: str, service: Serving, key: Caller, at: Located) -> Response:
    job = await own_job(request_id, service=service, key=key)
    return await result_of(job, service=service, at=at)


@router.delete("/requests/{request_id}")
async def cancel(request_id: str, service: Serving, key: Caller, at: Located) -> Response:
    """200 with the status where the request has ended by now; 202 where it runs and will stop at its next step."""
    await own_job(request_id, service=service, key=key)
    job = await service.cancel(request_id)
    return JSONResponse(answers.status(job, at), HTTPStatus.OK if job.state.ended else HTTPStatus.ACCEPTED)


async def result_of(job: Job, *, service: Service, at: Addresses) -> Response:
    """The result, or while there is none how the job is."""
    if job.state != State.COMPLETED:
        return JSONResponse(answers.status(job, at), _http_status(job))
    picture = await asyncio.to_thread(picture_base64, job, service.blobs) if job.edit.output.base64 else None
    return JSONResponse(answers.completed(job, at, picture=picture))


def _http_status(job: Job) -> int:
    return answers.FAILED_STATUS if job.state == State.FAILED else HTTPStatus.OK
