"""A job: one accepted edit on its way from QUEUED to COMPLETED or FAILED."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from darkroom.edit import Edit
from darkroom.errors import DarkroomError

MICRO = 1_000_000
"""Micro-credits in a credit: money is counted in whole micro-credits."""


class State(StrEnum):
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        return self in (State.COMPLETED, State.FAILED)


class Stage(StrEnum):
    """The stages of a running job, in order. All but FETCH, LORAS and WRITE are the engine's."""

    FETCH = "fetch"
    LORAS = "loras"
    PREPARE = "prepare"
    MERGE = "merge"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a running job is. step: denoising steps done, of `steps`."""

    stage: Stage
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The finished picture. timings_s: seconds of work by stage, as the worker measured them, without waits. Fetching
    and preparing may have been done while the job was still queued."""

    blob: str
    content_type: str
    size_bytes: int
    width_px: int
    height_px: int
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    @property
    def inference_time_s(self) -> float:
        """Work on the job, each second of it once: at most its total time, but it may overlap its queue time."""
        return sum(self.timings_s.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a job FAILED. code: stable, from `errors`; field: the parameter at fault, where there is one."""

    code: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: DarkroomError) -> "Failure":
        return cls(code=error.code, message=error.message, field=error.field)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to work on a job: every write of a worker names it, and a write under an old fence is refused.

    attempt: how often the job has been claimed, from 1. fence: rises with every claim, also where the attempt is not
    counted.
    """

    job_id: str
    attempt: int
    fence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as the ledger has it. Times are seconds since the epoch on the ledger's clock.

    started_at: its latest claim, so that the queue time is what the client waited; None while it is queued.
    price_micro: held at accept, charged on COMPLETED, given back on FAILED. remaining_micro: the key's balance just
    after the job ended, so that the answer is the same whenever it is asked for. resolve_s: what the submit waited
    until it was known which files the job's LoRAs are, before `created_at`; None without any. expires_at: when the job,
    its inputs and its result are forgotten; set when it ends.
    """

    id: str
    key_id: str
    slug: str
    edit: Edit
    price_micro: int
    state: State
    attempt: int
    fence: int
    cancel_requested: bool
    progress: Progress | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float | None
    remaining_micro: int | None
    result: Result | None
    failure: Failure | None
    resolve_s: float | None = None

    @property
    def queue_time_s(self) -> float | None:
        return None if self.started_at is None else self.started_at - self.created_at

    @property
    def total_time_s(self) -> float | None:
        return None if self.ended_at is None else self.ended_at - self.created_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One transition of a job, written by the ledger in the same transaction."""

    at: float
    kind: str
    attempt: int
    detail: Mapping[str, object] = field(default_factory=dict)
