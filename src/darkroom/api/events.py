"""How a request is, told as it moves: server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from darkroom.api import answers
from darkroom.api.context import Caller, Located, Serving, own_job
from darkroom.job import Job

router = APIRouter(prefix="/v2")


async def _own(request_id: str, service: Serving, key: Caller) -> Job:
    """Asked for before the answer begins: later there is no status left to refuse with."""
    return await own_job(request_id, service=service, key=key)


@router.get("/requests/{request_id}/events", response_class=EventSourceResponse)
async def events(job: Annotated[Job, Depends(_own)], service: Serving, at: Located) -> AsyncIterator[ServerSentEvent]:
    """What `/status` answers, now and whenever it has changed, until the request has ended."""
    async for now in service.watch(job.id):
        yield ServerSentEvent(data=answers.status(now, at))
