"""The SQLite schema by itself: what no query, not even one typed by hand, can do."""

import re
import sqlite3
from contextlib import closing

import pytest

from darkroom.ledger.contract import MAX_ATTEMPTS
from darkroom.ledger.sqlite import SqliteLedger
from ledgers import CRASH, RESULT, ask, make_key

STARTED = "worker = 'w', leased_at = 0, lease_until = 1, started_at = changed_at"
STOPPED = "worker = NULL, leased_at = NULL, lease_until = NULL, started_at = NULL"
ENDED = "ended_at = changed_at, expires_at = changed_at, remaining_micro = 0"


@pytest.fixture
def ledger(tmp_path):
    """With jobs `queued`, `running`, `completed` and `failed`."""
    with closing(SqliteLedger(tmp_path / "ledger.db", lease_s=30, retention_s=3600)) as ledger:
        key = make_key(ledger)
        for job_id in ("completed", "failed", "running", "queued"):
            ledger.accept(ask(key, job_id=job_id))
        ledger.complete(ledger.claim("w1")[1], RESULT)
        ledger.fail(ledger.claim("w1")[1], CRASH)
        ledger.claim("w1")
        yield ledger


@pytest.fixture
def execute(ledger):
    return ledger._file._connection.execute


@pytest.mark.parametrize(
    ("assignment", "job_id"),
    [
        ("state = 'QUEUED'", "completed"),
        (f"state = 'PROCESSING', attempt = attempt + 1, fence = fence + 1, {STARTED}", "failed"),
        ("state = 'FAILED', failure = '{}', result = NULL", "completed"),
        ("result = '{}'", "completed"),
        ("remaining_micro = 0", "failed"),
        ("fence = fence + 1", "completed"),
        ("expires_at = expires_at + 1", "completed"),
        (f"state = 'COMPLETED', result = '{{}}', {ENDED}", "queued"),
        (f"state = 'PROCESSING', {STARTED}", "queued"),
        (f"state = 'PROCESSING', attempt = attempt + 1, fence = fence + 2, {STARTED}", "queued"),
        (f"state = 'PROCESSING', attempt = attempt + 2, fence = fence + 1, {STARTED}", "queued"),
        ("state = 'PROCESSING', attempt = attempt + 1, fence = fence + 1", "queued"),
        ("cancel_requested = 1", "queued"),
        ("result = '{}'", "queued"),
        ("failure = '{}'", "running"),
        ("worker = NULL", "running"),
        ("fence = fence - 1", "running"),
        ("attempt = attempt - 1", "running"),
        (f"state = 'QUEUED', attempt = attempt + 1, {STOPPED}", "running"),
        (f"state = 'QUEUED', fence = fence + 1, {STOPPED}", "running"),
        ("state = 'COMPLETED'", "running"),
        (f"state = 'FAILED', {ENDED}", "running"),
        ("state = 'LOST'", "running"),
        ("changed_at = changed_at - 1", "running"),
        ("price_micro = 0", "running"),
        ("edit = '{}'", "queued"),
        ("fair_tag = 0", "queued"),
        ("lora_set = 'another'", "queued"),
        ("resolve_s = 1", "queued"),
        ("overtaken = overtaken - 1", "queued"),
        ("overtaken = overtaken + 1", "running"),
        ("overtaken = overtaken + 1", "completed"),
        ("key_id = 'another'", "queued"),
    ],
)
def test_a_job_can_not_go_astray(ledger, execute, assignment, job_id):
    """No update ends a job twice, skips a state, moves a fence, or changes what was asked for."""
    before = ledger.job(job_id)
    with pytest.raises(sqlite3.IntegrityError):
        execute(f"UPDATE jobs SET {assignment} WHERE id = ?", [job_id])
    assert ledger.job(job_id) == before


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs WHERE id = 'queued'",
        "DELETE FROM jobs WHERE id = 'running'",
        "DELETE FROM keys",
        "UPDATE events SET kind = 'completed'",
        "UPDATE keys SET balance_micro = balance_micro + 1",
        "UPDATE keys SET balance_micro = -1, spent_micro = granted_micro + 1 - held_micro",
        "UPDATE keys SET held_micro = -1, balance_micro = granted_micro + 1 - spent_micro",
        "INSERT INTO fair VALUES (2, 0)",
        (
            "INSERT INTO keys (id, name, digest, granted_micro, balance_micro, created_at) "
            "VALUES ('k', 'studio', 'd', 0, 0, 0)"
        ),
    ],
)
def test_nothing_is_lost_and_no_money_is_made(execute, statement):
    """Open jobs, keys and events can't be deleted or rewritten, nor credits come from nowhere."""
    with pytest.raises(sqlite3.IntegrityError):
        execute(statement)


def test_the_schema_knows_the_same_number_of_attempts():
    """The schema's own limit is the contract's MAX_ATTEMPTS."""
    assert MAX_ATTEMPTS == 3


def test_no_query_walks_through_all_jobs(execute, ledger):
    """Every query finds its jobs by an index: what has ended and waits to expire slows nothing down."""
    for name, query in ledger._file._statements._queries.items():
        values = dict.fromkeys(re.findall(r":(\w+)", query), 1)
        plan = [row["detail"] for row in execute("EXPLAIN QUERY PLAN " + query, values)]
        assert not {"SCAN jobs", "SCAN events"} & set(plan), (name, plan)
