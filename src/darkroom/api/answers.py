"""What is said about a job. Pure: a job that has ended is answered the same way whenever it is asked for."""

import json
from http import HTTPStatus
from typing import Any

from darkroom.api.context import Addresses
from darkroom.api.errors import rate_limit
from darkroom.errors import WorkerLost
from darkroom.job import MICRO, Job, Result, State
from darkroom.ledger.contract import Quota

RESOLVE = "resolve"
"""Beside a job's stages: what its submit waited for its LoRAs' addresses, before the job was there."""
FAILED_STATUS = HTTPStatus.UNPROCESSABLE_ENTITY
"""What a FAILED request is answered with on v2, whatever it failed of."""


def submitted(job: Job, at: Addresses) -> dict[str, Any]:
    """The answer to a submit: where the job is from now on. A replayed one may have moved on already."""
    return {
        "request_id": job.id,
        "status": State.QUEUED,
        "poll_url": at.poll(job.id),
        "status_url": at.status(job.id),
        "response_url": at.response(job.id),
    }


def status(job: Job, at: Addresses) -> dict[str, Any]:
    if job.state == State.FAILED:
        return failed(job)
    if job.state == State.COMPLETED:
        return {"status": job.state, "request_id": job.id, "metrics": _times(job)}
    body: dict[str, Any] = {
        "status": job.state,
        "request_id": job.id,
        "status_url": at.status(job.id),
        "response_url": at.response(job.id),
        "metrics": {},
    }
    if job.progress:
        body["progress"] = {"stage": job.progress.stage, "step": job.progress.step, "steps": job.progress.steps}
    return body


def failed(job: Job) -> dict[str, Any]:
    failure = failure_of(job)
    return {"status": job.state, **failure, "request_id": job.id, "metrics": _times(job)}


def refused(job: Job) -> dict[str, Any]:
    """A FAILED job as v1 says it: the one error body."""
    return {**failure_of(job), "request_id": job.id}


def refused_status(job: Job) -> int:
    """v1 tells a client whether to send the same again: it may where only the workers were at fault."""
    return HTTPStatus.BAD_GATEWAY if failure_of(job)["code"] == WorkerLost.code else FAILED_STATUS


def completed(job: Job, at: Addresses, *, picture: str | None) -> dict[str, Any]:
    """picture: in base64, where the request asked for it."""
    result, expires_at = _result(job), job.expires_at
    if expires_at is None:
        raise ValueError(f"{job.id} has ended without a time it expires at")
    url = at.file(job.id, file_name(job), expires_at=expires_at)
    image = {
        "url": url,
        "content_type": result.content_type,
        "file_name": file_name(job),
        "file_size": str(result.size_bytes),
        "width": result.width_px,
        "height": result.height_px,
    }
    before_s = {} if job.resolve_s is None else {RESOLVE: job.resolve_s}
    timings_s = {"inference": result.inference_time_s, **before_s, **result.timings_s}
    return {
        "status": job.state,
        "error": None,
        "request_id": job.id,
        "output": url,
        "images": [image],
        **({} if picture is None else {"image": picture}),
        "seed": str(job.edit.seed),
        "prompt": job.edit.prompt,
        "timings": {part: _ms(seconds) for part, seconds in timings_s.items()},
        "metrics": {"cost": credits_of(job.price_micro), "remaining_credits": _remaining(job), **_times(job)},
        **({"warnings": list(result.warnings)} if result.warnings else {}),
    }


def inline(job: Job, *, picture: str) -> dict[str, Any]:
    """The answer of v1 to `base64: true`."""
    return {
        "image": picture,
        "status": "Success",
        "infer_time": _ms(_result(job).inference_time_s),
        "outputs": 1,
        "image_format": job.edit.output.format,
        "seed": job.edit.seed,
    }


def headers(job: Job) -> dict[str, str]:
    """What v1 says beside the picture."""
    result = _result(job)
    size = {"height": result.height_px, "width": result.width_px, "samples": 1}
    return {
        "x-generation-time": str(_ms(result.inference_time_s)),
        "x-cost": str(credits_of(job.price_micro)),
        "x-remaining-credits": str(_remaining(job)),
        "x-seed-value": str(job.edit.seed),
        "x-output-metadata": json.dumps(size),
    }


def quota_headers(quota: Quota | None) -> dict[str, str]:
    if quota is None:
        return {}
    return rate_limit(limit=quota.limit, remaining=quota.remaining, reset_at=quota.reset_at)


def file_name(job: Job) -> str:
    """What a client would call the result."""
    return f"{job.slug}-{job.edit.seed}.{job.edit.output.format}"


def _result(job: Job) -> Result:
    if job.result is None:
        raise ValueError(f"{job.id} is {job.state} and has no result")
    return job.result


def failure_of(job: Job) -> dict[str, str]:
    failure = job.failure
    if failure is None:
        raise ValueError(f"{job.id} is {job.state} and has no failure")
    return {
        "error": failure.message,
        "code": failure.code,
        **({} if failure.field is None else {"field": failure.field}),
    }


def _times(job: Job) -> dict[str, float]:
    """Times in seconds, those that are known, and how often the job was taken up again."""
    times = {
        "inference_time": job.result.inference_time_s if job.result else None,
        "queue_time": job.queue_time_s,
        "total_time": job.total_time_s,
    }
    retries = {"retry_count": job.attempt - 1} if job.attempt > 1 else {}
    return {name: _ms(seconds) for name, seconds in times.items() if seconds is not None} | retries


def _remaining(job: Job) -> float:
    if job.remaining_micro is None:
        raise ValueError(f"{job.id} has ended without the balance it left")
    return credits_of(job.remaining_micro)


def credits_of(micro: int) -> float:
    return micro / MICRO


def _ms(seconds: float) -> float:
    """Seconds to the millisecond."""
    return round(seconds, 3)
