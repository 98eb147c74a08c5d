"""The sweeper: frees jobs whose worker went silent, and deletes what is past its time."""

import time
from collections.abc import Callable

import structlog

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import JOBS, UPLOADS, job_of, job_prefixes, upload_expires_at
from darkroom.job import Job
from darkroom.ledger.contract import Ledger

ORPHAN_AGE_S = 900
"""A file this old that belongs to no job was left by a submit that never came to be."""
TIDY_S = 60
"""Seconds between searches for left-overs and for uploads past their time, which look at every file."""

log = structlog.get_logger()


class Sweeper:
    """Safe to run from several processes at once: everything it does may be done twice.

    clock: seconds since the epoch, as the file system counts them.
    """

    def __init__(
        self, *, ledger: Ledger, blobs: Folder, interval_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.interval_s = interval_s
        self._ledger = ledger
        self._blobs = blobs
        self._clock = clock
        self._tidied_at = 0.0

    def sweep(self) -> list[Job]:
        """One pass; the jobs that were taken from a silent worker. Blocks for the disk."""
        reaped = self._ledger.reap()
        for job in reaped:
            log.warning("lease expired", request_id=job.id, state=job.state)
        self._expire()
        self._tidy()
        return reaped

    def _expire(self) -> None:
        """Files first: a row without files answers 404 already, files without a row would have no owner."""
        while job_ids := self._ledger.expired():
            for job_id in job_ids:
                for prefix in job_prefixes(job_id):
                    self._blobs.delete(prefix)
            self._ledger.forget(job_ids)
            log.info("expired", jobs=len(job_ids))

    def _tidy(self) -> None:
        now = self._clock()
        if now < self._tidied_at + TIDY_S:
            return
        self._tidied_at = now
        old = now - ORPHAN_AGE_S
        self._expire_uploads(now)
        orphans = {name: job_of(name) for name, modified_at in self._blobs.names(JOBS) if modified_at < old}
        self._blobs.clean(older_than_s=ORPHAN_AGE_S)
        known = self._ledger.known(set(orphans.values()))
        for name, job_id in orphans.items():
            if job_id not in known:
                self._blobs.delete(name)
                log.info("left-over deleted", blob=name)

    def _expire_uploads(self, now: float) -> None:
        # Their links have ended by then: nobody is kept from a file that is still there.
        for name, _ in self._blobs.names(UPLOADS):
            if upload_expires_at(name) <= now:
                self._blobs.delete(name)
                log.info("upload expired", blob=name)
