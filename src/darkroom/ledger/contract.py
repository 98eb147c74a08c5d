"""What every ledger promises, whatever database is under it.

1.  `accept` is one transaction: the idempotency row, the rate, the credits held, the job and its first event stand
    together or not at all, and they are on disk when it returns.
2.  A job ends COMPLETED or FAILED exactly once; its price is then charged or given back, in the same transaction.
3.  Only the holder of the latest fence can change a running job: every other write raises `LeaseLost` and changes
    nothing.
4.  An attempt counts when it is claimed and at most `MAX_ATTEMPTS` are made; `give_back` takes its count away again.
5.  Every transition of a job writes an event; its end also the messages to webhooks (see outbox.py).
6.  Times are the database's: no caller's clock decides when a lease has run out.

Methods block (a few milliseconds at most) and may be called from any thread.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from darkroom.edit import Edit
from darkroom.job import Event, Failure, Job, Lease, Progress, Result, State
from darkroom.ledger.outbox import Outbox

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """An API key. Only the SHA-256 of its secret is kept.

    Always granted_micro = balance_micro + held_micro + spent_micro, none of them below zero.
    rate_per_minute None: no limit. models None: all of them.
    """

    id: str
    name: str
    granted_micro: int
    balance_micro: int
    held_micro: int
    spent_micro: int
    rate_per_minute: int | None
    models: tuple[str, ...] | None
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Idempotency:
    """A client's own name for a request, and the SHA-256 of what it asked for under it."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A job as admission hands it in. `id` is the request id, chosen by the caller. resolve_s: how long finding out
    which files its LoRAs are took; None without any."""

    id: str
    key_id: str
    slug: str
    edit: Edit
    price_micro: int
    idempotency: Idempotency | None = None
    resolve_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """A key's rate (GCRA). remaining: requests it could make now at once; reset_at: when that is the full limit again,
    seconds since the epoch."""

    limit: int
    remaining: int
    reset_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """balance_micro: what the key can still spend. replayed: `job` is an earlier one under this idempotency name."""

    job: Job
    balance_micro: int
    quota: Quota | None
    replayed: bool


class Order(StrEnum):
    """What `history` goes by. CHARGE: what a job costs, which is nothing where it FAILED."""

    ACCEPTED = "accepted"
    SLUG = "slug"
    CHARGE = "charge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Which of a key's jobs `history` gives. slugs None: of all models. since, until: accepted at or after the one, and
    before the other, in seconds since the epoch. Those of equal rank stand newest first; ascending: all of it the
    other way round."""

    key_id: str
    limit: int
    offset: int = 0
    states: Collection[State] = tuple(State)
    slugs: Collection[str] | None = None
    since: float | None = None
    until: float | None = None
    order: Order = Order.ACCEPTED
    ascending: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """jobs: `limit` of the search's at most, from `offset` on; total: how many there are."""

    jobs: tuple[Job, ...]
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """A lease that has run out, as it stood. leased_at, lease_until: by the ledger's clock."""

    job_id: str
    fence: int
    leased_at: float
    lease_until: float


class Ledger(Protocol):
    outbox: Outbox

    def create_key(
        self,
        *,
        name: str,
        digest: str,
        granted_micro: int,
        rate_per_minute: int | None = None,
        models: Sequence[str] | None = None,
    ) -> Key:
        """Raises `BadSetting` if a live key has this name already."""

    def keys(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""

    def find_key(self, digest: str) -> Key | None:
        """The live key with this digest."""

    def revoke_key(self, name: str) -> Key:
        """Its accepted jobs still run. Raises `BadSetting` if there is no live key of this name."""

    def check(self, key_id: str, price_micro: int) -> None:
        """Whether a request of this price could be accepted now; nothing is held. Raises as `accept` does for rate,
        credits and a revoked key."""

    def accept(self, submission: Submission) -> Accepted:
        """Hold the price and queue the job. The same idempotency name and digest give the first job back, free.

        An earlier job is found under its idempotency name as long as `job` finds it, and costs no rate. Raises
        `IdempotencyConflict`, `InvalidKey` (revoked meanwhile), `RateLimited`, `InsufficientCredits`, `StorageFull`.
        """

    def replay(self, key_id: str, idempotency: Idempotency) -> Accepted | None:
        """What `accept` would give back for this name, if it has a job already. Raises `IdempotencyConflict`."""

    def job(self, job_id: str) -> Job:
        """Raises `UnknownRequest`, also for a job past its `expires_at`."""

    def history(self, search: Search) -> History:
        """The key's jobs that are searched for, as far as `job` finds them."""

    def events(self, job_id: str) -> list[Event]:
        """Oldest first; none for a job the ledger does not have.

        Their kinds: accepted, claimed, cancel_requested, retried, given_back, completed, failed.
        """

    def counts(self) -> Mapping[State, int]:
        """How many jobs are in each state; every state is there."""

    def claim(self, worker: str, held: Collection[str] = (), passing: Collection[str] = ()) -> tuple[Job, Lease] | None:
        """Take the next queued job for `lease_s` seconds; None if nothing waits.

        Fair between keys; within what `scheduler.choose` allows, one whose `Edit.lora_set` is among `held` goes before
        others. held: the sets that take this worker no merging. passing: jobs that it can't begin yet; that others go
        before them does not count.
        """

    def upcoming(self, held: Collection[str] = (), passing: Collection[str] = ()) -> Job | None:
        """The job that a `claim` would take now, left where it is: another worker may yet take it, or another go before
        it."""

    def heartbeat(self, worker: str, leases: Collection[Lease]) -> frozenset[str]:
        """Prolong the leases that are still this worker's; the jobs that it holds no more."""

    def progress(self, lease: Lease, progress: Progress) -> bool:
        """Note where the job is; whether it is to be cancelled. Raises `LeaseLost`. Need not reach the disk."""

    def complete(self, lease: Lease, result: Result) -> Job:
        """End the job COMPLETED and charge it, also where a cancel came too late to stop it. Raises `LeaseLost`."""

    def fail(self, lease: Lease, failure: Failure) -> Job:
        """End the job FAILED and give its price back. Raises `LeaseLost`."""

    def retry(self, lease: Lease, failure: Failure) -> Job:
        """Queue the job again after a crash, before those queued behind it. Raises `LeaseLost`.

        After the last attempt it ends FAILED with this instead, and one to be cancelled with code `cancelled`.
        """

    def give_back(self, lease: Lease) -> Job:
        """Queue the job again; the attempt doesn't count. One to be cancelled ends FAILED. Raises `LeaseLost`."""

    def cancel(self, job_id: str) -> Job:
        """End a queued job FAILED at once (code `cancelled`); ask a running one's worker to stop; leave an ended one.

        Raises `UnknownRequest`.
        """

    def release(self, worker: str, failure: Failure | None) -> list[Job]:
        """`retry` every job this worker holds: it is known to be dead. failure None: through no fault of theirs, which
        is a `give_back`."""

    def overdue(self) -> frozenset[Overdue]:
        """The leases that have run out. It waits for whatever keeps workers from prolonging theirs."""

    def reap(self, overdue: Collection[Overdue]) -> list[Job]:
        """`retry`, with `WorkerLost`, each of these jobs whose lease has not been prolonged since.

        A live worker's lease runs out too, where the clock is set forward, the machine sleeps, or nobody can write for
        a while. So name what was `overdue` so long ago that a live worker would have prolonged it.
        """

    def expired(self, limit: int = 100) -> list[str]:
        """Ended jobs past their `expires_at`, oldest first: their files can be deleted, then `forget` them."""

    def forget(self, job_ids: Collection[str]) -> None:
        """Delete ended jobs with their events. A job that has not ended stays."""

    def known(self, job_ids: Collection[str]) -> set[str]:
        """Which of these the ledger has, expired or not: files of any other job are left-overs."""

    def close(self) -> None: ...
