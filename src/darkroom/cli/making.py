"""The two ways to have an edit made: by a service in this process, or by a server."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from darkroom.admission import Asked
from darkroom.client import Client
from darkroom.compose import build_service
from darkroom.errors import BadSetting, JobCancelled, JobError, ServerRefused, ServerUnreachable, SetupError
from darkroom.job import Failure, Job, Progress, Result, State
from darkroom.keys import create_key
from darkroom.ledger.contract import Key, Ledger
from darkroom.observability import logging
from darkroom.occupancy import occupy
from darkroom.service import Service
from darkroom.settings import Settings
from darkroom.worker.supervisor import Readiness

LOCAL_KEY = "local"
"""The key that edits in this process are counted under."""
LOCAL_CREDITS = 1_000_000_000
LOOK_S = 0.1
"""How often a starting worker's health is looked at."""

Observe = Callable[[State, Progress | None], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """The finished picture, as a file's bytes."""

    data: bytes
    seed: int
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...]


async def edit_here(settings: Settings, slug: str, params: Mapping[str, object], observe: Observe) -> Edited:
    """With a service of our own, as `darkroom serve` has it but for the HTTP. If cancelled, cancels the job.

    Raises `RequestError` if the edit is refused, `JobError` if it fails, `SetupError` if the model can't be loaded.
    """
    logging.configure(settings.log_format, level=settings.log_level)
    service = build_service(settings)
    with occupy(settings):
        return await _edit(service, slug, params, observe)


async def _edit(service: Service, slug: str, params: Mapping[str, object], observe: Observe) -> Edited:
    await service.start()
    try:
        key = await asyncio.to_thread(local_key, service.ledger)
        asked = Asked(request_id=uuid4().hex, slug=slug, params=params, text=False, key=key, idempotency_name=None)
        accepted = await service.submit(asked)
        try:
            job = await _follow(service, accepted.job.id, observe)
        except asyncio.CancelledError:
            await service.cancel(accepted.job.id)
            raise
        result = _result(job)
        return Edited(
            data=await asyncio.to_thread(service.blobs.get, result.blob),
            seed=job.edit.seed,
            timings_s=result.timings_s,
            warnings=result.warnings,
        )
    finally:
        await service.stop()


async def edit_there(server: str, key: str, slug: str, params: Mapping[str, object], observe: Observe) -> Edited:
    """By a server. If cancelled, cancels the job. Raises `ServerRefused`, `ServerUnreachable`, `JobError`."""
    async with Client.connect(server, key=key) as client:
        request_id = await client.submit(slug, params)
        try:
            async for status in client.watch(request_id):
                observe(status.state, status.progress)
        except asyncio.CancelledError:
            with contextlib.suppress(ServerRefused, ServerUnreachable):
                await client.cancel(request_id)
            raise
        result = await client.result(request_id)
        if result.failure:
            raise _failed(result.failure)
        return Edited(
            data=await client.download(result.body["output"]),
            seed=int(result.body["seed"]),
            timings_s=result.body["timings"],
            warnings=tuple(result.body.get("warnings", ())),
        )


def local_key(ledger: Ledger) -> Key:
    """The key of this machine's own edits, made when first asked for."""
    while True:
        for key in ledger.keys():  # noqa: SIM118  no mapping
            if key.name == LOCAL_KEY and key.revoked_at is None:
                return key
        try:
            return create_key(ledger, name=LOCAL_KEY, credits=LOCAL_CREDITS)[1]
        except BadSetting:
            # Another process has made it in between: it is found the next time round.
            continue


async def _follow(service: Service, job_id: str, observe: Observe) -> Job:
    """The ended job. Raises `SetupError` if no worker could be made ready for it."""
    unfit = asyncio.create_task(_cancel_if_unfit(service, job_id))
    try:
        async for job in service.watch(job_id):
            observe(job.state, job.progress)
    finally:
        unfit.cancel()
        reason = (await asyncio.gather(unfit, return_exceptions=True))[0]
    if isinstance(reason, str) and job.failure and job.failure.code == JobCancelled.code:
        raise SetupError(f"the model can't be loaded: {reason}")
    return job


async def _cancel_if_unfit(service: Service, job_id: str) -> str | None:
    """Wait for the worker to be ready. If it is not to be, cancel the job; the reason. A later crash is retried."""
    while (health := service.health).state != Readiness.READY:
        if health.state in (Readiness.SETUP_FAILED, Readiness.RESTARTING):
            await service.cancel(job_id)
            return health.reason or health.state
        await asyncio.sleep(LOOK_S)
    return None


def _result(job: Job) -> Result:
    if job.failure:
        raise _failed(job.failure)
    if job.result is None:
        raise JobError(f"Request {job.id} is {job.state}: the service stopped before it had ended")
    return job.result


def _failed(failure: Failure) -> JobError:
    return JobError(failure.message, field=failure.field)
