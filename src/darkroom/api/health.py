"""Whether the process answers, and whether it can edit pictures."""

import asyncio
from dataclasses import asdict
from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from darkroom.api.context import Serving
from darkroom.worker.supervisor import Readiness

router = APIRouter(prefix="/health")


@router.get("/live")
async def live() -> Response:
    return JSONResponse({"status": "LIVE"})


@router.get("/ready")
async def ready(service: Serving) -> Response:
    """200 only when the engine is loaded and jobs are begun; jobs are accepted, and wait, all the same."""
    health = service.health
    body = {
        "status": health.state,
        "reason": health.reason,
        "engine": asdict(health.engine) if health.engine else None,
        "jobs": dict(await asyncio.to_thread(service.ledger.counts)),
    }
    is_ready = health.state == Readiness.READY
    return JSONResponse(body, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)
