"""The worker's loop: claim a job, make it, settle it with the ledger; until drained."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog
from PIL import Image

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name, result_name
from darkroom.edit import Edit, PictureRef
from darkroom.errors import EngineFailed, JobCancelled, JobError, LeaseLost, OutOfMemory
from darkroom.fetch.guard import Fetcher
from darkroom.job import Failure, Job, Lease, Progress, Result, Stage
from darkroom.ledger.contract import Ledger
from darkroom.picture import Limits, ReadPicture, read_picture, write_picture
from darkroom.settings import Settings
from darkroom.worker.messages import Advanced, Message, Released
from darkroom.worker.orders import Orders

HEARTBEATS_A_LEASE = 6
POLL_S = 1.0
"""How long a job can wait at most when its wake-up was lost, or came from another process."""

log = structlog.get_logger()


class Made(Protocol):
    """What an engine makes of an edit: an RGB picture, and the seconds each of its stages took."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def timings_s(self) -> Mapping[str, float]: ...


class Editor(Protocol):
    """The engine, as far as the loop knows it. An error from `observe` ends the edit and leaves the engine usable."""

    def edit(self, edit: Edit, pictures: Sequence[Image.Image], observe: Callable[[Progress], None]) -> Made: ...


class Drained(Exception):
    """The running job goes back to the queue: this worker has no time left for it."""


class Worker:
    def __init__(
        self,
        *,
        name: str,
        ledger: Ledger,
        blobs: Folder,
        fetcher: Fetcher,
        engine: Editor,
        orders: Orders,
        tell: Callable[[Message], None],
        settings: Settings,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._blobs = blobs
        self._fetcher = fetcher
        self._engine = engine
        self._limits = Limits.of(settings)
        self._orders = orders
        self._tell = tell
        self._heartbeat_s = settings.lease_s / HEARTBEATS_A_LEASE
        self._result_metadata = settings.result_metadata

    def run(self) -> None:
        """Work until drained. Raises `OutOfMemory` when a job has left the process in doubt: it should be replaced."""
        while not self._orders.draining:
            claimed = self._ledger.claim(self._name)
            if claimed is None:
                self._orders.wait(POLL_S)
                continue
            job, lease = claimed
            with structlog.contextvars.bound_contextvars(request_id=job.id):
                try:
                    self._settle(job, lease)
                finally:
                    self._tell(Released(job_id=job.id))

    def _settle(self, job: Job, lease: Lease) -> None:
        """Make the job and tell the ledger how it ended. Whatever a job raises ends the job, not the worker."""
        log.info("claimed", slug=job.slug, attempt=lease.attempt, fence=lease.fence)
        try:
            with self._heart(lease) as lost:
                result = self._make(job, lease, lost)
            self._complete(lease, result)
        except LeaseLost as error:
            log.warning("lease lost", detail=error.message)
        except Exception as error:
            with suppress(LeaseLost):
                self._put_down(lease, error)
            if isinstance(error, OutOfMemory):
                raise

    def _put_down(self, lease: Lease, error: Exception) -> None:
        match error:
            case Drained():
                log.info("given back")
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

    def _make(self, job: Job, lease: Lease, lost: threading.Event) -> Result:
        edit = job.edit
        timings_s: dict[str, float] = {}

        def observe(progress: Progress) -> None:
            self._tell(Advanced(job_id=job.id, stage=progress.stage, step=progress.step, steps=progress.steps))
            if lost.is_set():
                raise LeaseLost(f"{job.id} is another worker's now")
            if self._ledger.progress(lease, progress) or self._orders.cancelled(job.id):
                raise JobCancelled("Cancelled on request")
            if self._orders.overdue:
                raise Drained

        @contextmanager
        def stage(stage: Stage, step: int) -> Iterator[None]:
            observe(Progress(stage=stage, step=step, steps=edit.num_inference_steps))
            started = time.perf_counter()
            yield
            timings_s[stage] = time.perf_counter() - started

        with stage(Stage.FETCH, 0):
            pictures = asyncio.run(self._pictures(job))
        made = self._engine.edit(edit, [picture.image for picture in pictures], observe)
        timings_s |= made.timings_s
        with stage(Stage.WRITE, edit.num_inference_steps):
            metadata = {"seed": str(edit.seed), "slug": job.slug, "request_id": job.id}
            data = write_picture(made.image, edit.output, metadata=metadata if self._result_metadata else {})
            blob = result_name(job.id, fence=lease.fence, extension=edit.output.format)
            self._blobs.put(blob, data)
        return Result(
            blob=blob,
            content_type=edit.output.format.content_type,
            size_bytes=len(data),
            width_px=made.image.width,
            height_px=made.image.height,
            timings_s=timings_s,
            warnings=tuple(warning for picture in pictures for warning in picture.warnings),
        )

    async def _pictures(self, job: Job) -> list[ReadPicture]:
        async def one(ref: PictureRef) -> ReadPicture:
            data = await self._bytes(job, ref)
            return await asyncio.to_thread(read_picture, data, field=ref.field, limits=self._limits)

        return list(await asyncio.gather(*(one(ref) for ref in job.edit.pictures)))

    async def _bytes(self, job: Job, ref: PictureRef) -> bytes:
        """The picture's file. One from an address is kept, so that another attempt works on the same bytes."""
        if ref.url is None:
            assert ref.blob is not None  # noqa: S101  PictureRef has either
            return self._blobs.get(ref.blob)
        name = input_name(job.id, ref.field)
        try:
            return self._blobs.get(name)
        except FileNotFoundError:
            data = await self._fetcher.fetch(ref.url, field=ref.field)
            await asyncio.to_thread(self._blobs.put, name, data)
            return data

    def _complete(self, lease: Lease, result: Result) -> None:
        try:
            self._ledger.complete(lease, result)
        except LeaseLost:
            self._blobs.delete(result.blob)
            raise
        log.info("completed", seconds=round(result.inference_time_s, 3), bytes=result.size_bytes)

    @contextmanager
    def _heart(self, lease: Lease) -> Iterator[threading.Event]:
        """Keep the lease while the body runs; the event is set when it is lost all the same."""
        lost, done = threading.Event(), threading.Event()

        def beat() -> None:
            while not done.wait(self._heartbeat_s):
                pulse = self._ledger.heartbeat(self._name, [lease])
                for job_id in pulse.cancelled:
                    self._orders.cancel(job_id)
                if pulse.lost:
                    lost.set()
                    return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            done.set()
            thread.join()
