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
PASSED_OVER = 256
"""How many jobs are passed over at most. Keys stand side by side in the queue, so that it takes many of them, all with
slow hosts, for another key's job to stand behind so many."""


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
        self._without_slot: set[str] = set()

    def look(self) -> tuple[Job | None, frozenset[str]]:
        """Begin to bring what the next jobs lack. The job that may be claimed now, if there is one, and those that such
        a claim is to pass over."""
        coming = {job_id for job_id, brought in self._brought.items() if not brought.done()}
        free = SLOTS - len(coming)
        if free:
            self._without_slot.clear()
        passed = coming | self._without_slot
        while (job := self._upcoming(passed)) and not self._may_begin(job):
            if len(passed) >= PASSED_OVER:
                return None, frozenset(passed)
            if free:
                self._begin(job)
                free -= 1
            else:
                self._without_slot.add(job.id)
            passed.add(job.id)
        return job, frozenset(passed)

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
        for job_id in [job_id for job_id, brought in self._brought.items() if brought.done()][:-PASSED_OVER]:
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
