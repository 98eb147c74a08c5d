"""Looking ahead: the job that comes next is prepared while another is made.

Nothing is claimed for it. Another worker may take the job, or another job go first; then the work was in vain. A job
that has cost a worker an attempt is left alone: it is prepared when it is its turn, beside nobody.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

import structlog

from darkroom.job import Job
from darkroom.worker.preparation import Preparation

WAIT_S = 1.0
"""How long a wait for it goes on in silence."""

log = structlog.get_logger()


class Ahead:
    """Prepares one job at a time, in a thread, and keeps the one preparation. To be used from a single thread.

    upcoming: the job that a claim would give now.
    """

    def __init__(self, *, upcoming: Callable[[], Job | None], prepare: Callable[[Job], Preparation]) -> None:
        self._upcoming = upcoming
        self._prepare = prepare
        self._future: Future[Preparation] | None = None
        self._job_id = ""

    def look(self) -> None:
        """Begin to prepare the upcoming job, in place of what is kept, unless it is that one. One that is under way is
        left to end."""
        if self._future and not self._future.done():
            return
        job = self._upcoming()
        if job is None or job.attempt:
            self._future, self._job_id = None, ""
        elif job.id != self._job_id:
            self._future, self._job_id = Future(), job.id
            # A daemon: a fetch that nobody waits for any more does not hold up the end of the process.
            threading.Thread(target=self._run, args=(job, self._future), name="ahead", daemon=True).start()

    def take(self, job: Job, waiting: Callable[[], None]) -> Preparation | None:
        """The job's preparation, once it is ready; None if there is none, or if it failed: the job's own attempt meets
        the cause again, and is judged by it. waiting: as for `wait`."""
        if self._future is None or self._job_id != job.id:
            return None
        self.wait(waiting)
        future, self._future, self._job_id = self._future, None, ""
        if error := future.exception():
            log.debug("looking ahead failed", error=repr(error))
            return None
        return future.result()

    def wait(self, waiting: Callable[[], None]) -> None:
        """Until nothing is being prepared. waiting: called every `WAIT_S` seconds; what it raises ends the wait."""
        while self._future and not wait([self._future], WAIT_S).done:
            waiting()

    def _run(self, job: Job, future: Future[Preparation]) -> None:
        try:
            future.set_result(self._prepare(job))
        except BaseException as error:  # noqa: BLE001  whatever it is, the worker must not wait for ever
            future.set_exception(error)
