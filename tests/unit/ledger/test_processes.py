"""Several processes at one SQLite file."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from darkroom.job import State
from darkroom.ledger.sqlite import SqliteLedger
from ledgers import key_named, make_key

HERE = Path(__file__).parent
DEADLINE_S = 120


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@contextmanager
def opened(path):
    with closing(SqliteLedger(path, lease_s=30, retention_s=3600)) as ledger:
        yield ledger


@contextmanager
def started(what, path, key_id):
    """A process of crowd.py, dead at the end."""
    with subprocess.Popen(
        [sys.executable, HERE / "crowd.py", what, path, key_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_threads_of_two_processes_share_the_queue(path):
    """Eight threads in each of two processes submit and claim at once: no job is lost, none is claimed twice."""
    with opened(path) as ledger:
        key = make_key(ledger)
    with started("work", path, key.id) as first, started("work", path, key.id) as second:
        for process in (first, second):
            go(process)
        done = [json.loads(process.communicate(timeout=DEADLINE_S)[0]) for process in (first, second)]
    submitted = done[0]["submitted"] + done[1]["submitted"]
    claimed = done[0]["claimed"] + done[1]["claimed"]
    assert len(claimed) == len(set(claimed)) == 320
    assert set(claimed) == set(submitted)
    with opened(path) as ledger:
        assert ledger.counts()[State.COMPLETED] == 320
        assert key_named(ledger, "studio").spent_micro == 3200


def test_what_a_killed_process_reported_as_accepted_is_there(path):
    """Killed in the middle of submitting, a process leaves every job it reported, whole and paid for."""
    with opened(path) as ledger:
        key = make_key(ledger)
    with started("submit", path, key.id) as process:
        go(process)
        reported = [process.stdout.readline().strip() for _ in range(100)]
        process.kill()
        reported += process.stdout.read().split()
    with opened(path) as ledger:
        assert ledger.known(reported) == set(reported)
        queued = ledger.counts()[State.QUEUED]
        assert len(reported) <= queued <= len(reported) + 1
        assert key_named(ledger, "studio").held_micro == 10 * queued
        assert [event.kind for event in ledger.events(reported[-1])] == ["accepted"]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
