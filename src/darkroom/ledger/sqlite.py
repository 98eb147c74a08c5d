"""The ledger on SQLite: one file, for all processes of one machine.

What must always hold is in the schema (sql/sqlite/001_ledger.sql): credits are held, charged and given back by its
triggers, and events written. The methods here choose the query and name the errors.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

from darkroom.errors import (
    BadSetting,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidKey,
    LeaseLost,
    StorageFull,
    UnknownRequest,
)
from darkroom.job import MICRO, Event, Failure, Job, Lease, Progress, Result, State
from darkroom.ledger import rate
from darkroom.ledger.contract import (
    Accepted,
    History,
    Idempotency,
    Key,
    Ledger,
    Overdue,
    Quota,
    Search,
    Submission,
)
from darkroom.ledger.rows import Row, event_of, job_of, key_of, to_json
from darkroom.ledger.scheduler import AFFINITY, WINDOW, Affinity, Waiting, choose
from darkroom.ledger.setback import CANCELLED, ending, worker_lost
from darkroom.ledger.sqlite_file import SqliteFile, Statements
from darkroom.ledger.sqlite_outbox import SqliteOutbox

MOST_MICRO = 2**63 - 1
"""The largest amount a column holds."""


class SqliteLedger(Ledger):
    """lease_s: how long a claim or heartbeat lasts. retention_s: how long an ended job is kept. affinity: how far a
    claim may leave fair order. clock: seconds since the epoch. Raises `BadSetting` if the file at `path` can't be
    used."""

    def __init__(
        self,
        path: Path,
        *,
        lease_s: float,
        retention_s: float,
        affinity: Affinity = AFFINITY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lease_s = lease_s
        self._retention_s = retention_s
        self._affinity = affinity
        self._file = SqliteFile(path, clock=clock)
        self.outbox = SqliteOutbox(self._file)

    def close(self) -> None:
        self._file.close()

    def create_key(
        self,
        *,
        name: str,
        digest: str,
        granted_micro: int,
        rate_per_minute: int | None = None,
        models: Sequence[str] | None = None,
    ) -> Key:
        if not name:
            raise BadSetting("name: a key needs one")
        if not 0 <= granted_micro <= MOST_MICRO:
            raise BadSetting(f"credits: must be between 0 and {MOST_MICRO // MICRO}")
        if rate_per_minute is not None and rate_per_minute < 1:
            raise BadSetting("rate per minute: must be at least 1; leave it out for no limit")
        with self._file.transaction() as sql:
            if sql.one("live_key_named", name=name):
                raise BadSetting(f"there is a key named {name!r} already: revoke it first, or choose another name")
            try:
                row = sql.one(
                    "create_key",
                    id=uuid.uuid4().hex,
                    name=name,
                    digest=digest,
                    granted_micro=granted_micro,
                    rate_per_minute=rate_per_minute,
                    models=None if models is None else json.dumps(list(models)),
                )
            except sqlite3.IntegrityError as error:
                raise BadSetting("this secret belongs to another key: create the key again with a new one") from error
        return key_of(row)

    def keys(self) -> list[Key]:
        with self._file.reading() as sql:
            return [key_of(row) for row in sql.all("all_keys")]

    def find_key(self, digest: str) -> Key | None:
        with self._file.reading() as sql:
            row = sql.one("live_key_of_digest", digest=digest)
        return key_of(row) if row else None

    def revoke_key(self, name: str) -> Key:
        with self._file.transaction() as sql:
            row = sql.one("revoke_key", name=name)
        if not row:
            raise BadSetting(f"there is no live key named {name!r}: `darkroom keys list` shows them")
        return key_of(row)

    def accept(self, submission: Submission) -> Accepted:
        try:
            with self._file.transaction() as sql:
                named = submission.idempotency
                earlier = self._replayed(sql, submission.key_id, named) if named else None
                return earlier or self._accepted(sql, submission)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StorageFull("The ledger's disk is full; try again later") from error
            raise

    def check(self, key_id: str, price_micro: int) -> None:
        with self._file.reading() as sql:
            _afforded(sql, key_id, price_micro)

    def replay(self, key_id: str, idempotency: Idempotency) -> Accepted | None:
        with self._file.transaction() as sql:
            return self._replayed(sql, key_id, idempotency)

    def job(self, job_id: str) -> Job:
        with self._file.reading() as sql:
            return _found(sql, job_id)

    def history(self, search: Search) -> History:
        with self._file.reading() as sql:
            rows = sql.all(
                "history",
                key_id=search.key_id,
                states=json.dumps(list(search.states)),
                slugs=None if search.slugs is None else json.dumps(list(search.slugs)),
                since=search.since,
                until=search.until,
                order=search.order,
            )
            ids = [row["id"] for row in (reversed(rows) if search.ascending else rows)]
            page = ids[search.offset : search.offset + search.limit]
            jobs = tuple(job_of(row) for row in sql.all("jobs_in_order", ids=json.dumps(page)))
        return History(jobs=jobs, total=len(ids))

    def events(self, job_id: str) -> list[Event]:
        with self._file.reading() as sql:
            return [event_of(row) for row in sql.all("events", job_id=job_id)]

    def counts(self) -> Mapping[State, int]:
        with self._file.reading() as sql:
            rows = sql.all("counts")
        return dict.fromkeys(State, 0) | {State(row["state"]): row["jobs"] for row in rows}

    def cancel(self, job_id: str) -> Job:
        with self._file.transaction() as sql:
            job = _found(sql, job_id)
            if job.state is State.PROCESSING and not job.cancel_requested:
                return job_of(sql.one("request_cancel", id=job_id))
            if job.state is not State.QUEUED:
                return job
            sql.all("take_back_tag", id=job.key_id, work=job.edit.work)
            return job_of(
                sql.one("cancel_queued", id=job_id, failure=to_json(CANCELLED), retention_s=self._retention_s)
            )

    def claim(self, worker: str, held: Collection[str] = (), passing: Collection[str] = ()) -> tuple[Job, Lease] | None:
        with self._file.transaction() as sql:
            waiting = _waiting(sql, passing)
            if not waiting:
                return None
            place = choose(waiting, held, self._affinity)
            if place:
                sql.all("note_overtaken", ids=json.dumps([job.id for job in waiting[:place]]))
            job = job_of(sql.one("claim", id=waiting[place].id, worker=worker, lease_s=self._lease_s))
            # The first one's tag, also where another goes before it: who comes in now stands no further back than it.
            sql.all("advance_virtual_time", fair_tag=waiting[0].fair_tag)
        return job, Lease(job_id=job.id, attempt=job.attempt, fence=job.fence)

    def upcoming(self, held: Collection[str] = (), passing: Collection[str] = ()) -> Job | None:
        with self._file.reading() as sql:
            waiting = _waiting(sql, passing)
            row = sql.one("queued_job", id=waiting[choose(waiting, held, self._affinity)].id) if waiting else None
        return job_of(row) if row else None

    def heartbeat(self, worker: str, leases: Collection[Lease]) -> frozenset[str]:
        listed = json.dumps([asdict(lease) for lease in leases])
        with self._file.transaction(durable=False) as sql:
            rows = sql.all("heartbeat", worker=worker, leases=listed, lease_s=self._lease_s)
        return frozenset(lease.job_id for lease in leases) - {row["id"] for row in rows}

    def progress(self, lease: Lease, progress: Progress) -> bool:
        with self._file.transaction(durable=False) as sql:
            row = sql.one("progress", id=lease.job_id, fence=lease.fence, progress=to_json(progress))
        return bool(_still_held(row, lease)["cancel_requested"])

    def complete(self, lease: Lease, result: Result) -> Job:
        with self._file.transaction() as sql:
            row = sql.one(
                "complete",
                id=lease.job_id,
                fence=lease.fence,
                result=to_json(result),
                retention_s=self._retention_s,
            )
            return job_of(_still_held(row, lease))

    def fail(self, lease: Lease, failure: Failure) -> Job:
        with self._file.transaction() as sql:
            return job_of(_still_held(self._failed(sql, lease, failure), lease))

    def retry(self, lease: Lease, failure: Failure) -> Job:
        with self._file.transaction() as sql:
            return self._put_back(sql, _held(sql, lease), failure)

    def give_back(self, lease: Lease) -> Job:
        with self._file.transaction() as sql:
            return self._put_back(sql, _held(sql, lease), None)

    def release(self, worker: str, failure: Failure | None) -> list[Job]:
        with self._file.transaction() as sql:
            jobs = [job_of(row) for row in sql.all("held_jobs_of_worker", worker=worker)]
            return [self._put_back(sql, job, failure) for job in jobs]

    def overdue(self) -> frozenset[Overdue]:
        with self._file.transaction(durable=False) as sql:
            return frozenset(map(_overdue, _held_overdue(sql)))

    def reap(self, overdue: Collection[Overdue]) -> list[Job]:
        with self._file.transaction() as sql:
            rows = [row for row in _held_overdue(sql) if _overdue(row) in overdue]
            return [self._put_back(sql, job, worker_lost(job)) for job in map(job_of, rows)]

    def expired(self, limit: int = 100) -> list[str]:
        with self._file.reading() as sql:
            return [row["id"] for row in sql.all("expired", limit=limit)]

    def forget(self, job_ids: Collection[str]) -> None:
        with self._file.transaction() as sql:
            sql.all("forget", ids=json.dumps(list(job_ids)))

    def known(self, job_ids: Collection[str]) -> set[str]:
        with self._file.reading() as sql:
            return {row["id"] for row in sql.all("known", ids=json.dumps(list(job_ids)))}

    def _replayed(self, sql: Statements, key_id: str, named: Idempotency) -> Accepted | None:
        """The earlier job under the same idempotency name."""
        sql.all("free_idempotency_name", key_id=key_id, name=named.name)
        row = sql.one("job_of_idempotency_name", key_id=key_id, name=named.name)
        if row is None:
            return None
        if row["idempotency_digest"] != named.digest:
            raise IdempotencyConflict(
                f"Idempotency key {named.name!r} was used for another request ({row['id']}): choose a new one"
            )
        key = sql.one("key_now", id=key_id)
        return Accepted(
            job=job_of(row),
            balance_micro=key["balance_micro"],
            quota=_quota(key, key["arrival_at"]),
            replayed=True,
        )

    def _accepted(self, sql: Statements, submission: Submission) -> Accepted:
        key, arrival_at, balance_micro = _afforded(sql, submission.key_id, submission.price_micro)
        named = submission.idempotency
        row = sql.one(
            "insert_job",
            id=submission.id,
            key_id=submission.key_id,
            idempotency_name=named.name if named else None,
            idempotency_digest=named.digest if named else None,
            slug=submission.slug,
            edit=json.dumps(submission.edit.to_record()),
            price_micro=submission.price_micro,
            work=submission.edit.work,
            lora_set=submission.edit.lora_set,
            resolve_s=submission.resolve_s,
        )
        sql.all("note_submission", id=key["id"], arrival_at=arrival_at, finish_tag=row["fair_tag"] + row["work"])
        return Accepted(job=job_of(row), balance_micro=balance_micro, quota=_quota(key, arrival_at), replayed=False)

    def _put_back(self, sql: Statements, job: Job, failure: Failure | None) -> Job:
        """Queue a running job again, or end it. `failure` None: the attempt doesn't count."""
        lease = Lease(job_id=job.id, attempt=job.attempt, fence=job.fence)
        end = ending(job, failure)
        if end is not None:
            return job_of(_still_held(self._failed(sql, lease, end), lease))
        row = sql.one(
            "put_back",
            id=lease.job_id,
            fence=lease.fence,
            uncounted=failure is None,
            setback=None if failure is None else to_json(failure),
        )
        return job_of(row)

    def _failed(self, sql: Statements, lease: Lease, failure: Failure) -> Row | None:
        row: Row | None = sql.one(
            "fail", id=lease.job_id, fence=lease.fence, failure=to_json(failure), retention_s=self._retention_s
        )
        return row


def _afforded(sql: Statements, key_id: str, price_micro: int) -> tuple[sqlite3.Row, float, int]:
    """The key, and what its rate and its balance would be after a request."""
    key = sql.one("key_now", id=key_id)
    if key is None or key["revoked_at"] is not None:
        raise InvalidKey("Unauthorized. API key is invalid or may have expired.")
    arrival_at, limit = key["arrival_at"], key["rate_per_minute"]
    if limit is not None:
        arrival_at = rate.take(limit=limit, arrival_at=arrival_at, now=key["now"])
    balance_micro = key["balance_micro"] - price_micro
    if balance_micro < 0:
        raise InsufficientCredits(
            f"Insufficient credits: the balance is {_credits(key['balance_micro'])}, "
            f"this request needs {_credits(price_micro)}"
        )
    return key, arrival_at, balance_micro


def _waiting(sql: Statements, passing: Collection[str]) -> list[Waiting]:
    return [Waiting(**row) for row in sql.all("waiting", passing=json.dumps(list(passing)), limit=WINDOW)]


def _held_overdue(sql: Statements) -> list[Row]:
    sql.all("shorten_leases")
    return list(sql.all("held_jobs_overdue"))


def _overdue(row: Row) -> Overdue:
    return Overdue(job_id=row["id"], fence=row["fence"], leased_at=row["leased_at"], lease_until=row["lease_until"])


def _found(sql: Statements, job_id: str) -> Job:
    row = sql.one("job", id=job_id)
    if row is None:
        raise UnknownRequest(job_id)
    return job_of(row)


def _held(sql: Statements, lease: Lease) -> Job:
    return job_of(_still_held(sql.one("held_job", id=lease.job_id, fence=lease.fence), lease))


def _still_held(row: Row | None, lease: Lease) -> Row:
    if row is None:
        raise LeaseLost(f"attempt {lease.attempt} at {lease.job_id} (fence {lease.fence}) is no longer the current one")
    return row


def _quota(key: Row, arrival_at: float) -> Quota | None:
    limit = key["rate_per_minute"]
    return None if limit is None else rate.quota(limit=limit, arrival_at=arrival_at, now=key["now"])


def _credits(micro: int) -> str:
    return f"{Decimal(micro) / MICRO:f}"
