"""A job as a row of the history. Pure, like `answers`."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from darkroom.admission import FAST, LORAS, MATCH_INPUT
from darkroom.api.answers import credits_of, failure_of, file_name
from darkroom.api.context import Addresses
from darkroom.edit import Edit
from darkroom.job import Job, State

INLINE = "inline"
"""What stands for a picture that this server was given itself, or had already."""


class Status(StrEnum):
    """A job's state, as the history has it."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(state for state in State if Status.of(state) is self)

    @classmethod
    def of(cls, state: State) -> "Status":
        return cls(state) if state.ended else cls.PENDING


def request_row(job: Job, at: Addresses) -> dict[str, Any]:
    """A request, whatever has become of it."""
    return {
        "request_id": job.id,
        "model_name": job.slug,
        "model_status": Status.of(job.state),
        "credits_deduction": 0.0 if job.state is State.FAILED else credits_of(job.price_micro),
        "request_body": asked(job.edit),
        "generation_url": _picture(job, at),
        "latency_ms": None if job.total_time_s is None else round(job.total_time_s * 1000),
        "model_created": timestamp(job.created_at),
        "model_ended": timestamp(job.ended_at),
        "expires_at": timestamp(job.expires_at),
        **(failure_of(job) if job.failure else {"error": None}),
    }


def generation_row(job: Job, at: Addresses) -> dict[str, Any]:
    """A request that has given a picture, with the names that the SDK has for some of it."""
    row = request_row(job, at)
    names = {"status": row["model_status"], "prompt": job.edit.prompt, "parameters": row["request_body"]}
    return row | names


def asked(edit: Edit) -> dict[str, Any]:
    """What was asked for, every default decided, under the names that a request has for it."""
    body: dict[str, Any] = {
        **{picture.field: _public(picture.url) for picture in edit.pictures},
        "prompt": edit.prompt,
        "negative_prompt": edit.negative_prompt,
        "aspect_ratio": ":".join(map(str, edit.aspect_ratio)) if edit.aspect_ratio else MATCH_INPUT,
        "seed": edit.seed,
        "num_inference_steps": edit.num_inference_steps,
        "guidance_scale": edit.true_cfg_scale,
        "image_format": edit.output.format,
        "quality": edit.output.quality,
        "base64": edit.output.base64,
    }
    for lora in edit.loras:
        if lora.field in LORAS:
            body |= {lora.field: _public(lora.url, lora.name), LORAS[lora.field]: lora.strength}
    return body | ({FAST: True} if edit.lightning else {})


def _picture(job: Job, at: Addresses) -> str | None:
    if job.state is not State.COMPLETED or job.expires_at is None:
        return None
    return at.file(job.id, file_name(job), expires_at=job.expires_at)


def _public(url: str | None, otherwise: str = INLINE) -> str:
    """An address without its query, which may be a key to it."""
    return otherwise if url is None else urlsplit(url)._replace(query="", fragment="").geturl()


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339, in UTC. seconds: since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
