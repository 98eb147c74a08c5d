"""What queued jobs need from the network is brought before their turn, for several of them at once: a slow host holds
up its own job and no other.

Nothing is claimed for it. What has come is on disk, for whoever makes the job then. A job that has cost a worker an
attempt is left alone: what it still lacks it fetches when it is its turn.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future

from darkroom.errors import JobError
from darkroom.job import Job

SLOTS = 8
"""For how many jobs something is brought at once."""
LOOKED_AT = 64
"""How many jobs are passed over at most in looking for one that may be claimed."""


class Arrivals:
    """To be used from a single thread.

    upcoming: the job that a claim would give now which passes over some. is_here: whether a job lacks nothing. bring:
    fetches what it lacks; the seconds that each stage of that took. on_arrival: called, in another thread, when a job
    may be claimed that could not be.
    """

    def __init__(
        self,
        *,
        upcoming: Callable[[Collection[str]], Job | None],
        is_here: Callable[[Job], bool],
        bring: Callable[[Job], Mapping[str, float]],
        on_arrival: Callable[[], None],
    ) -> None:
        self._upcoming = upcoming
        self._is_here = is_here
        self._bring = bring
        self._on_arrival = on_arrival
        self._brought: dict[str, Future[Mapping[str, float]]] = {}

    def look(self) -> frozenset[str]:
        """Begin to bring what the next jobs lack, and say which jobs a claim is to pass over until it has come."""
        waited_for = {job_id for job_id, brought in self._brought.items() if not brought.done()}
        free = SLOTS - len(waited_for)
        while len(waited_for) < LOOKED_AT and (job := self._upcoming(waited_for)) and not self._may_begin(job):
            if free > 0:
                self._begin(job)
                free -= 1
            waited_for.add(job.id)
        return frozenset(waited_for)

    def take(self, job: Job) -> Mapping[str, float]:
        """The seconds that each stage of bringing the job's things took. Raises the `JobError` that this ended with;
        another error the job's own attempt will meet again, and be judged by."""
        brought = self._brought.pop(job.id, None)
        if brought is None or not brought.done():
            return {}
        error = brought.exception()
        if isinstance(error, JobError):
            raise error
        return {} if error else brought.result()

    def _may_begin(self, job: Job) -> bool:
        return bool(job.attempt) or job.id in self._brought or self._is_here(job)

    def _begin(self, job: Job) -> None:
        for job_id in [job_id for job_id, brought in self._brought.items() if brought.done()][:-LOOKED_AT]:
            # Ended without this worker, or made by another.
            del self._brought[job_id]
        brought = self._brought[job.id] = Future()
        # A daemon: what nobody waits for any more does not hold up the end of the process.
        threading.Thread(target=self._run, args=(job, brought), name="arrival", daemon=True).start()

    def _run(self, job: Job, brought: Future[Mapping[str, float]]) -> None:
        try:
            brought.set_result(self._bring(job))
        except BaseException as error:  # noqa: BLE001  whatever it is, the job must not wait for ever
            brought.set_exception(error)
        self._on_arrival()
