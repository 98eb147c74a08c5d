"""The sweeper: frees jobs whose worker went silent, and deletes what is past its time."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import JOBS, UPLOADS, job_of, job_prefixes, upload_expires_at
from darkroom.job import Job
from darkroom.ledger.contract import Ledger, Overdue

GRACE = 1 / 4
"""How long a lease is known to have run out before it is taken, as a share of its length. A live worker prolongs it six
times in that length."""
ORPHAN_AGE_S = 900
"""A file this old that belongs to no job was left by a submit that never came to be."""
TIDY_S = 60
"""Seconds between searches for left-overs and for uploads past their time, which look at every file."""
JUMP_S = 60
"""A clock that has gone this much further than it should have was set, or the machine slept."""

Told = TypeVar("Told")

log = structlog.get_logger()


class Sweeper:
    """Safe to run from several processes at once: everything it does may be done twice.

    clock: seconds since the epoch, as the file system counts them. steady: seconds on a clock that nobody sets; where
    `clock` is given alone, that one.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        blobs: Folder,
        interval_s: float,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._interval_s = interval_s
        self._clock = clock
        self._steady = steady or (time.monotonic if clock is time.time else clock)
        self._overdue: dict[Overdue, float] = {}
        self._ahead_s = self._clock() - self._steady()
        self._deletes_at = self._tidies_at = self._steady()
        self._strays: set[str] = set()

    @property
    def interval_s(self) -> float:
        """How long from here to the next sweep: less than usual while a lease is about to be taken."""
        return min([self._interval_s, *map(_grace_s, self._overdue)])

    def sweep(self) -> list[Job]:
        """One pass; the jobs that were taken from a silent worker. Blocks for the disk."""
        reaped = self._reap()
        if self._may_delete():
            self._expire()
            self._tidy()
        return reaped

    def _reap(self) -> list[Job]:
        overdue = self._ledger.overdue()
        now = self._steady()
        self._overdue = {lease: self._overdue.get(lease, now) for lease in overdue}
        due = [lease for lease, since in self._overdue.items() if now - since >= _grace_s(lease)]
        reaped = self._ledger.reap(due) if due else []
        for job in reaped:
            log.warning("lease expired", request_id=job.id, state=job.state)
        return reaped

    def _may_delete(self) -> bool:
        """What is deleted stays so, and a clock that has just jumped may yet be set right."""
        now = self._steady()
        ahead_s = self._clock() - now
        jump_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        if abs(jump_s) > JUMP_S:
            log.warning("the clock jumped: nothing is deleted for a while", by_s=round(jump_s), for_s=TIDY_S)
            self._deletes_at = now + TIDY_S
        return now >= self._deletes_at

    def _expire(self) -> None:
        """Files first: a row without files answers 404 already, files without a row would have no owner."""
        while job_ids := self._ledger.expired():
            for job_id in job_ids:
                for prefix in job_prefixes(job_id):
                    self._blobs.delete(prefix)
            self._ledger.forget(job_ids)
            log.info("expired", jobs=len(job_ids))

    def _tidy(self) -> None:
        if self._steady() < self._tidies_at:
            return
        self._tidies_at = self._steady() + TIDY_S
        now = self._clock()
        self._expire_uploads(now)
        old = (name for name, modified_at in self._blobs.names(JOBS) if modified_at < now - ORPHAN_AGE_S)
        orphans = dict(self._told(old, job_of))
        self._blobs.clean(older_than_s=ORPHAN_AGE_S)
        known = self._ledger.known(set(orphans.values()))
        for name, job_id in orphans.items():
            if job_id not in known:
                self._blobs.delete(name)
                log.info("left-over deleted", blob=name)

    def _expire_uploads(self, now: float) -> None:
        # Their links have ended by then: nobody is kept from a file that is still there.
        names = (name for name, _ in self._blobs.names(UPLOADS))
        for name, expires_at in self._told(names, upload_expires_at):
            if expires_at <= now:
                self._blobs.delete(name)
                log.info("upload expired", blob=name)

    def _told(self, names: Iterable[str], read: Callable[[str], Told]) -> Iterator[tuple[str, Told]]:
        """Each with what its name tells. Whatever somebody else has put there is left alone, and said once."""
        for name in names:
            try:
                told = read(name)
            except ValueError:
                if name not in self._strays:
                    log.warning("not a file of ours, left alone", blob=name)
                self._strays.add(name)
            else:
                yield name, told


def _grace_s(lease: Overdue) -> float:
    return (lease.lease_until - lease.leased_at) * GRACE
