"""The worker's loop: claim a job, make it, settle it with the ledger; until drained.

The device is kept busy: what jobs need from the network is brought before they are claimed (`arrivals`). While a job is
made, the next one is prepared (`ahead`), its LoRAs merged if there is room, and the last one's picture is written. So a
worker holds two jobs at most, one being made and one being finished. A job that has cost a worker an attempt has the
process to itself from its claim to its end: whatever is wrong with it takes nobody along, and one that was taken along
ends by its own doing the next time.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog
from PIL import Image

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import result_name
from darkroom.checkpoint.locate import known_as
from darkroom.disk import NO_SPACE
from darkroom.edit import Edit, set_name
from darkroom.errors import EngineFailed, JobCancelled, JobError, LeaseLost, ModelChanged, OutOfMemory
from darkroom.fetch.guard import Fetcher
from darkroom.job import Failure, Job, Lease, Progress, Result, Stage
from darkroom.ledger.contract import Ledger
from darkroom.lora.adapters import Adapters
from darkroom.lora.convert import AdapterFile, strengths_of
from darkroom.picture import Limits, write_picture
from darkroom.room import has_room
from darkroom.settings import Settings
from darkroom.worker.ahead import Ahead
from darkroom.worker.arrivals import Arrivals
from darkroom.worker.heart import Heart
from darkroom.worker.messages import Advanced, Message, Released
from darkroom.worker.orders import Orders
from darkroom.worker.preparation import Preparation, Preparer, Preparing

HEARTBEATS_A_LEASE = 6
POLL_S = 1.0
"""How long a job can wait at most when its wake-up was lost, or came from another process."""
REST_S = 10.0
"""How long no job is claimed after one whose picture found no room, whatever the disk says."""

log = structlog.get_logger()


class Made(Protocol):
    """What an engine makes of an edit: an RGB picture, and the seconds each of its stages took."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def timings_s(self) -> Mapping[str, float]: ...


class Editor(Preparing, Protocol):
    """The engine, as far as the loop knows it: `prepare` and `merge_ahead` may run beside `make`, `make` beside no
    other. An error from `observe` ends the edit and leaves the engine usable.

    merged: the names of the LoRA sets that take it no merging.
    """

    @property
    def merged(self) -> frozenset[str]: ...

    def merge_ahead(self, edit: Edit, loras: Sequence[AdapterFile]) -> None: ...

    def make(
        self, edit: Edit, prepared: Any, observe: Callable[[Progress], None], loras: Sequence[AdapterFile]
    ) -> Made: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Unwritten:
    """A job's picture before it is a file. loras: that it was made with, in the edit's order. timings_s: of all stages
    up to there, also of those done ahead."""

    image: Image.Image
    loras: tuple[AdapterFile, ...]
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...]


class Drained(Exception):
    """The job goes back to the queue: this worker has no time left for it."""


class Worker:
    def __init__(
        self,
        *,
        name: str,
        ledger: Ledger,
        blobs: Folder,
        fetcher: Fetcher,
        adapters: Adapters,
        engine: Editor,
        orders: Orders,
        tell: Callable[[Message], None],
        settings: Settings,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._blobs = blobs
        self._engine = engine
        self._orders = orders
        self._tell = tell
        self._settings = settings
        self._checkpoint = known_as(settings.checkpoint)
        self._preparer = Preparer(
            blobs=blobs, fetcher=fetcher, adapters=adapters, engine=engine, limits=Limits.of(settings)
        )
        self._arrivals = Arrivals(
            upcoming=lambda waited_for: ledger.upcoming(self._held(), waited_for),
            is_here=self._preparer.is_here,
            bring=self._preparer.bring,
            on_arrival=orders.stir,
        )
        self._ahead = Ahead(upcoming=lambda: self._arrivals.look()[0], prepare=self._prepare_ahead)
        self._also_named: dict[str, str] = {}
        self._heart = Heart(worker=name, ledger=ledger, beat_s=settings.lease_s / HEARTBEATS_A_LEASE)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._finishing: Future[None] | None = None
        self._has_room, self._rest_until = True, 0.0

    def run(self) -> None:
        """Work until drained; to be called once. Raises `OutOfMemory` when a job has left the process in doubt: it is
        to be replaced."""
        with self._heart.beating(), self._finisher:
            while not self._orders.draining:
                claimed = self._claim()
                if claimed is None:
                    self._orders.wait(POLL_S)
                    continue
                job, lease = claimed
                with structlog.contextvars.bound_contextvars(request_id=job.id):
                    self._work(job, lease)
            self._wait_finished()

    def _claim(self) -> tuple[Job, Lease] | None:
        """None where nothing waits that could be begun, or where its picture would find no room."""
        had_room, self._has_room = self._has_room, time.monotonic() >= self._rest_until and has_room(self._settings)
        if not self._has_room:
            if had_room:
                log.error("no room for results: jobs wait until there is", folder=str(self._settings.data))
            return None
        job, passed = self._arrivals.look()
        return self._ledger.claim(self._name, self._held(), passed) if job else None

    def _work(self, job: Job, lease: Lease) -> None:
        """Make the job and have it finished. Whatever it raises ends the job, not the worker."""
        log.info("claimed", slug=job.slug, attempt=lease.attempt, fence=lease.fence)
        self._heart.hold(lease)
        alone = lease.attempt > 1
        if alone:
            self._wait_finished()
        try:
            unwritten = self._make(job, lease, alone=alone)
        except Exception as error:
            self._put_down(lease, error)
            if isinstance(error, OutOfMemory):
                raise
            return
        self._wait_finished()
        self._finishing = self._finisher.submit(copy_context().run, self._finish, job, lease, unwritten)
        if alone:
            self._wait_finished()

    def _wait_finished(self) -> None:
        """Until the job before has been settled. Raises what kept it from being settled at all."""
        if self._finishing:
            self._finishing.result()

    def _make(self, job: Job, lease: Lease, *, alone: bool) -> Unwritten:
        def observe(progress: Progress) -> None:
            self._observe(lease, progress)
            # What is merged decides which job is next, so that is looked for afterwards.
            if not (alone or self._orders.draining or progress.stage == Stage.MERGE):
                self._ahead.look()

        if job.edit.checkpoint not in (None, self._checkpoint):
            raise ModelChanged("The server's model was changed while this request waited: send it again")
        enter = partial(self._enter, job, lease)
        enter(Stage.FETCH)
        brought_s = self._arrivals.take(job)
        if alone:
            self._ahead.wait(partial(enter, Stage.FETCH))
        preparation = self._ahead.take(job, partial(enter, Stage.PREPARE)) or self._preparer.prepare(job, enter)
        self._note_name(job.edit, preparation.loras)
        made = self._engine.make(job.edit, preparation.prepared, observe, preparation.loras)
        # What was begun before the job's turn, as a download or a merge, may have been ended in it.
        parts = (brought_s, preparation.timings_s, made.timings_s)
        timings_s = {stage: sum(part.get(stage, 0) for part in parts) for part in parts for stage in part}
        return Unwritten(image=made.image, loras=preparation.loras, timings_s=timings_s, warnings=preparation.warnings)

    def _prepare_ahead(self, job: Job) -> Preparation:
        preparation = self._preparer.prepare(job)
        if not preparation.loras:
            return preparation
        started = time.perf_counter()
        self._engine.merge_ahead(job.edit, preparation.loras)
        merge_s = time.perf_counter() - started
        return replace(preparation, timings_s={**preparation.timings_s, Stage.MERGE.value: merge_s})

    def _held(self) -> frozenset[str]:
        """The names under which jobs ask for the sets that take no merging."""
        merged = self._engine.merged
        return merged | {asked for asked, name in self._also_named.items() if name in merged}

    def _note_name(self, edit: Edit, loras: Sequence[AdapterFile]) -> None:
        """A set has another name than the engine's where a LoRA had not been read yet when the job was accepted."""
        merged, name = self._engine.merged, set_name(strengths_of(loras))
        self._also_named = {asked: known for asked, known in self._also_named.items() if known in merged}
        if name != edit.lora_set:
            self._also_named[edit.lora_set] = name

    def _finish(self, job: Job, lease: Lease, unwritten: Unwritten) -> None:
        try:
            result = self._write(job, lease, unwritten)
            self._complete(lease, result)
        except Exception as error:  # noqa: BLE001  it ends the job, not the worker
            self._put_down(lease, error)
        else:
            self._let_go(lease)

    def _write(self, job: Job, lease: Lease, unwritten: Unwritten) -> Result:
        self._enter(job, lease, Stage.WRITE)
        started = time.perf_counter()
        image, output = unwritten.image, job.edit.output
        metadata = {"seed": str(job.edit.seed), "slug": job.slug, "request_id": job.id}
        if unwritten.loras:
            used = zip(job.edit.loras, unwritten.loras, strict=True)
            metadata["loras"] = json.dumps(
                [{"name": ref.name, "sha256": file.digest, "strength": file.strength} for ref, file in used]
            )
        data = write_picture(image, output, metadata=metadata if self._settings.result_metadata else {})
        blob = result_name(job.id, fence=lease.fence, extension=output.format)
        self._blobs.put(blob, data)
        return Result(
            blob=blob,
            content_type=output.format.content_type,
            size_bytes=len(data),
            width_px=image.width,
            height_px=image.height,
            timings_s={**unwritten.timings_s, Stage.WRITE: time.perf_counter() - started},
            warnings=unwritten.warnings,
        )

    def _complete(self, lease: Lease, result: Result) -> None:
        try:
            self._ledger.complete(lease, result)
        except LeaseLost:
            self._blobs.delete(result.blob)
            raise
        log.info("completed", seconds=round(result.inference_time_s, 3), bytes=result.size_bytes)

    def _put_down(self, lease: Lease, error: Exception) -> None:
        """Tell the ledger that the job has not been done, and why; let go of it."""
        with suppress(LeaseLost):
            match error:
                case LeaseLost():
                    log.warning("lease lost", detail=error.message)
                case Drained():
                    log.info("given back")
                    self._ledger.give_back(lease)
                case OSError(errno=number) if number in NO_SPACE:
                    log.error("given back for want of room", error=str(error))
                    self._rest_until = time.monotonic() + REST_S
                    self._ledger.give_back(lease)
                case OutOfMemory():
                    log.error("out of memory", error=error.message)
                    self._ledger.retry(lease, Failure.of(error))
                case JobError():
                    log.warning("failed", code=error.code, error=error.message)
                    self._ledger.fail(lease, Failure.of(error))
                case _:
                    log.error("engine failed", exc_info=error)
                    message = f"The engine failed on this request; the service's log has the cause under {lease.job_id}"
                    self._ledger.retry(lease, Failure.of(EngineFailed(message)))
        self._let_go(lease)

    def _let_go(self, lease: Lease) -> None:
        self._heart.let_go(lease)
        self._tell(Released(job_id=lease.job_id))

    def _enter(self, job: Job, lease: Lease, stage: Stage) -> None:
        steps = job.edit.num_inference_steps
        self._observe(lease, Progress(stage=stage, step=steps if stage == Stage.WRITE else 0, steps=steps))

    def _observe(self, lease: Lease, progress: Progress) -> None:
        """Say where the job is. Raises `LeaseLost`, `JobCancelled`, `Drained` where it is to go no further."""
        job_id = lease.job_id
        self._tell(Advanced(job_id=job_id, stage=progress.stage, step=progress.step, steps=progress.steps))
        if not self._heart.holds(lease):
            raise LeaseLost(f"{job_id} is another worker's now")
        if self._ledger.progress(lease, progress):
            raise JobCancelled("The request was cancelled")
        if self._orders.overdue:
            raise Drained
