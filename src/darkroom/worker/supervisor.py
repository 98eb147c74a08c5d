"""The supervisor: starts the worker process, watches it, and replaces it when it dies, hangs or can't be set up."""

import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import structlog

from darkroom.errors import WorkerLost
from darkroom.job import Failure
from darkroom.ledger.contract import Ledger
from darkroom.settings import Settings
from darkroom.worker.environment import environment
from darkroom.worker.messages import (
    Advanced,
    Configure,
    Drain,
    Message,
    Ready,
    Released,
    SetupFailed,
    Wake,
    from_line,
    to_line,
)

BACKOFF_S = (0.1, 1, 2, 4, 8, 15, 30)
"""Waits before a worker is started again after it has failed that often in a row."""
EXIT_S = 10
"""How long a worker may take to exit once it has closed its pipe, or its grace is over."""
LATE_S = 1.0
"""A deadline that is noticed so much too late was missed by this process, not by the worker."""
SETUP = "setup"
"""What a worker that is not ready is at; no job has this id."""

log = structlog.get_logger()


class Readiness(StrEnum):
    STARTING = "STARTING"
    READY = "READY"
    NO_ROOM = "NO_ROOM"
    SETUP_FAILED = "SETUP_FAILED"
    RESTARTING = "RESTARTING"
    STOPPING = "STOPPING"


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """How the worker is. NO_ROOM: it begins no job for want of room on the disk. reason: why it is not READY, where
    that is known; engine: what it said when it became ready."""

    state: Readiness
    reason: str | None = None
    engine: Ready | None = None


class Deadline(NamedTuple):
    """When the worker must have been heard of again about something, on the event loop's clock."""

    at: float
    within_s: float
    doing: str


NEVER = Deadline(at=math.inf, within_s=math.inf, doing="nothing")


class Supervisor:
    """`on_change` is called, on the event loop, with the id of every job that the worker has moved; `on_ready` whenever
    a worker can take jobs."""

    def __init__(
        self,
        *,
        settings: Settings,
        ledger: Ledger,
        on_change: Callable[[str], None],
        on_ready: Callable[[Ready], None] = lambda _: None,
    ) -> None:
        self.health = Health(state=Readiness.STARTING)
        self._settings = settings
        self._ledger = ledger
        self._on_change = on_change
        self._on_ready = on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._name = ""
        self._deadlines: dict[str, Deadline] = {}
        self._stop = asyncio.Event()
        self._failures = 0
        self._called_off = False

    async def run(self) -> None:
        """Keep a worker alive until `drain` has been called and it is gone."""
        while not self._stop.is_set():
            try:
                reason = await self._live()
            except Exception:
                log.exception("supervision failed", worker=self._name)
                reason = "supervision failed"
            if self._stop.is_set():
                break
            self._failures += 1
            wait_s = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
            log.error("worker gone", worker=self._name, reason=reason, restart_in_s=wait_s)
            if self.health.state != Readiness.SETUP_FAILED:
                self.health = Health(state=Readiness.RESTARTING, reason=reason)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)

    def wake(self) -> None:
        self._send(Wake())

    def holds(self, job_id: str) -> bool:
        """Whether the worker is at this job now. It makes one, and may be finishing another meanwhile."""
        return job_id in self._deadlines

    def drain(self) -> None:
        """Have the worker end its jobs within `drain_s`, or give them back, and exit. Not to be undone."""
        if not self._stop.is_set():
            self._stop.set()
            loading = self.health.state != Readiness.READY
            self.health = Health(state=Readiness.STOPPING, engine=self.health.engine)
            self._send(Drain(grace_s=self._settings.drain_s))
            if loading:
                # It has no job yet, and would read the whole model first before it heard of this.
                self.kill()

    def kill(self) -> None:
        """End a worker that does not exit by itself. Once it has been told to drain, that costs its jobs no attempt."""
        if self._process and self._process.returncode is None:
            self._called_off = self._stop.is_set()
            self._process.kill()

    def _send(self, message: Message) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(to_line(message))

    async def _live(self) -> str:
        """One worker's life, from its start to the reason of its end; its jobs are in the queue again afterwards."""
        self._name = f"{os.uname().nodename}-{os.urandom(4).hex()}"
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "darkroom.worker.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            # A terminal's Ctrl-C is for the service alone: it drains its worker.
            process_group=0,
        )
        self._send(Configure(worker=self._name, settings=self._settings.model_dump(mode="json")))
        log.info("worker started", worker=self._name, pid=process.pid)
        if self._stop.is_set():
            # Told to drain before there was anybody to tell.
            self.kill()
        assert process.stdout is not None  # noqa: S101  asked for above
        reason = "supervision failed"
        try:
            hung = await self._attend(process.stdout)
            if hung:
                process.kill()
            reason = hung or _obituary(await asyncio.wait_for(process.wait(), EXIT_S))
        finally:
            self.kill()
            await process.wait()
            self._process = None
            self._deadlines.clear()
            await self._bury(reason)
        return reason

    async def _attend(self, lines: asyncio.StreamReader) -> str | None:
        """Take in the worker's messages until it closes its pipe; the reason if it is to be killed instead."""
        self._expect(SETUP, self._settings.setup_deadline_s, SETUP)
        while True:
            first = min(self._deadlines.values(), default=NEVER)
            try:
                async with asyncio.timeout_at(first.at):
                    line = await lines.readline()
            except TimeoutError:
                if self._stood_still(first):
                    continue
                return f"hung: nothing heard for {first.within_s:g} s in {first.doing}"
            if not line:
                return None
            match from_line(line):
                case Ready() as ready:
                    self._ready(ready)
                    del self._deadlines[SETUP]
                case SetupFailed(reason=reason):
                    if not self._stop.is_set():
                        self.health = Health(state=Readiness.SETUP_FAILED, reason=reason)
                case Advanced(job_id=job_id) as at:
                    doing = f"{at.stage} (step {at.step} of {at.steps})"
                    self._expect(job_id, self._settings.step_deadline_s, doing)
                    self._on_change(job_id)
                case Released(job_id=job_id):
                    self._deadlines.pop(job_id, None)
                    self._failures = 0
                    self._on_change(job_id)
                case other:
                    raise ValueError(f"not from a worker: {other}")

    def _stood_still(self, passed: Deadline) -> bool:
        """Whether it was this process that did not run. What the worker has said is then still in the pipe, and all
        deadlines are moved."""
        now = asyncio.get_running_loop().time()
        if now - passed.at < LATE_S:
            return False
        self._deadlines = {
            subject: deadline._replace(at=max(deadline.at, now + LATE_S))
            for subject, deadline in self._deadlines.items()
        }
        return True

    def _expect(self, subject: str, within_s: float, doing: str) -> None:
        at = asyncio.get_running_loop().time() + within_s
        self._deadlines[subject] = Deadline(at=at, within_s=within_s, doing=doing)

    def _ready(self, ready: Ready) -> None:
        log.info("worker ready", worker=self._name, device=ready.device, dtype=ready.dtype)
        if not self._stop.is_set():
            self.health = Health(state=Readiness.READY, engine=ready)
            self._on_ready(ready)

    async def _bury(self, reason: str) -> None:
        """Put the dead worker's jobs back into the queue, or end those that had their last attempt."""
        lost = Failure.of(WorkerLost(f"The worker was lost while it ran this request ({reason})"))
        failure = None if self._called_off else lost
        for job in await asyncio.to_thread(self._ledger.release, self._name, failure):
            self._on_change(job.id)


def _obituary(code: int) -> str:
    meaning = {0: "exited", 3: "setup failed", 4: "out of memory"}
    return f"killed by signal {-code}" if code < 0 else meaning.get(code, f"exit code {code}")
