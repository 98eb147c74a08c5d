"""The service: the one door that every client, the API and the command line come in at."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import structlog

from darkroom.admission import Admission, Asked
from darkroom.bell import Bell
from darkroom.blobs.folder import Folder
from darkroom.catalogue.card import Card
from darkroom.errors import InvalidKey
from darkroom.job import Job
from darkroom.keys import digest
from darkroom.ledger.contract import Accepted, History, Key, Ledger, Search
from darkroom.links import Links
from darkroom.lora.library import Library
from darkroom.room import has_room
from darkroom.settings import Settings
from darkroom.sweep import Sweeper
from darkroom.uploads import Upload, Uploads
from darkroom.worker.fleet import Fleet
from darkroom.worker.supervisor import EXIT_S, Health, Readiness

POLL_S = 1.0
"""How soon a change is seen that nobody rang for: another process may have made it."""

log = structlog.get_logger()


class Service:
    """A node: admission, the ledger, a supervised worker for each device, a sweeper. Belongs to one event loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        catalogue: Mapping[str, Card],
        ledger: Ledger,
        blobs: Folder,
        links: Links,
        loras: Library,
        admission: Admission,
        uploads: Uploads,
        sweeper: Sweeper,
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.ledger = ledger
        self.blobs = blobs
        self.links = links
        self.loras = loras
        self._admission = admission
        self._uploads = uploads
        self._sweeper = sweeper
        self._bell = Bell()
        self._fleet = Fleet(settings=settings, ledger=ledger, on_change=self._bell.ring)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def health(self) -> Health:
        health = self._fleet.health
        if health.state == Readiness.READY and not has_room(self.settings):
            return replace(health, state=Readiness.NO_ROOM, reason=f"{self.settings.data} has no room for results")
        return health

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._fleet.run(), name="fleet"),
            asyncio.create_task(self._sweep(), name="sweeper"),
        ]

    def drain(self) -> None:
        """Begin to stop: workers end their jobs or give them back; calls that wait for a queued job wait no longer."""
        self._stopping = True
        self._fleet.drain()
        self._bell.ring_all()

    async def stop(self) -> None:
        """Drain, and return when the workers are gone and the ledger closed. Queued jobs wait for the next start."""
        self.drain()
        fleet, sweeper = self._tasks
        try:
            async with asyncio.timeout(self.settings.drain_s + EXIT_S):
                await asyncio.shield(fleet)
        except TimeoutError:
            self._fleet.kill()
            await fleet
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        self.ledger.close()

    def key(self, secret: str) -> Key:
        """The key with this secret; blocks for a read. Raises `InvalidKey`."""
        key = self.ledger.find_key(digest(secret))
        if key is None:
            raise InvalidKey("Unauthorized. API key is invalid or may have expired.")
        return key

    async def submit(self, asked: Asked) -> Accepted:
        """Accept a job: once this returns it will end, whatever happens. Raises `RequestError`."""
        accepted = await self._admission.admit(asked)
        if not accepted.replayed:
            log.info("accepted", slug=asked.slug, request_id=accepted.job.id, key=asked.key.name)
            self._fleet.wake()
        return accepted

    async def upload(self, params: Mapping[str, object], key: Key) -> Sequence[Upload]:
        """Keep pictures for later requests. params: as they came, JSON values. Raises `RequestError`."""
        return await self._uploads.take(params, key)

    async def job(self, job_id: str) -> Job:
        """Raises `UnknownRequest`."""
        return await asyncio.to_thread(self.ledger.job, job_id)

    async def history(self, search: Search) -> History:
        """A key's jobs, as far as they are still kept."""
        return await asyncio.to_thread(self.ledger.history, search)

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """The job as it is, and again whenever it has moved, until it has ended or this service stops working on it."""
        seen = None
        with self._bell.listen(job_id) as heard:
            while True:
                heard.clear()
                job = await self.job(job_id)
                if job != seen:
                    yield (seen := job)
                if job.state.ended or (self._stopping and not self._fleet.holds(job_id)):
                    return
                try:
                    await asyncio.wait_for(heard.wait(), POLL_S)
                except TimeoutError:
                    continue

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job when it has ended, or as it is after `timeout_s` seconds or when the service stops."""
        try:
            async with asyncio.timeout(timeout_s):
                async for _ in self.watch(job_id):
                    pass
        except TimeoutError:
            pass
        return await self.job(job_id)

    async def cancel(self, job_id: str) -> Job:
        """End a queued job at once, a running one within a step. Raises `UnknownRequest`."""
        job = await asyncio.to_thread(self.ledger.cancel, job_id)
        self._bell.ring(job_id)
        return job

    async def _sweep(self) -> None:
        while True:
            try:
                for job in await asyncio.to_thread(self._sweeper.sweep):
                    self._bell.ring(job.id)
                    self._fleet.wake()
            except Exception:
                log.exception("sweep failed")
            await asyncio.sleep(self._sweeper.interval_s)
