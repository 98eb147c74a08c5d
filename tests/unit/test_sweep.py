"""The sweeper, on a real ledger and folder, with a clock that the test sets."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name, result_name, upload_name
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.errors import UnknownRequest
from darkroom.job import Failure, State
from darkroom.ledger.contract import Submission
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.sweep import GRACE, ORPHAN_AGE_S, TIDY_S, Sweeper
from darkroom.worker.loop import HEARTBEATS_A_LEASE

START = 1_000_000.0


class Shop:
    def __init__(self, folder):
        self.now = START
        self.steady = 0.0
        self.path = folder / "l.db"
        self.ledger = SqliteLedger(self.path, lease_s=30, retention_s=60, clock=lambda: self.now)
        self.blobs = Folder(folder / "blobs")
        self.sweeper = Sweeper(
            ledger=self.ledger,
            blobs=self.blobs,
            interval_s=10,
            clock=lambda: self.now,
            steady=lambda: self.steady,
        )
        self.key = self.ledger.create_key(name="k", digest="d", granted_micro=1000)

    def wait(self, seconds):
        self.now += seconds
        self.steady += seconds

    def put(self, name):
        self.blobs.put(name, b"x")
        os.utime(self.blobs.path(name), (self.now, self.now))

    def submit(self, job_id):
        self.put(input_name(job_id, "image"))
        edit = Edit(
            prompt="p",
            negative_prompt=None,
            pictures=(PictureRef(field="image", blob=input_name(job_id, "image")),),
            aspect_ratio=None,
            seed=1,
            num_inference_steps=1,
            true_cfg_scale=1.0,
            output=Output(format=ImageFormat.PNG, quality=90),
        )
        self.ledger.accept(Submission(id=job_id, key_id=self.key.id, slug="s", edit=edit, price_micro=1))

    def files(self):
        return sorted(name for name, _ in self.blobs.names())


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.ledger.close()


def test_an_ended_job_is_forgotten_after_its_time(shop):
    """Row, inputs and result stay for the retention and are then gone together."""
    shop.submit("joba")
    _, lease = shop.ledger.claim("w")
    shop.put(result_name("joba", fence=1, extension="png"))
    shop.ledger.fail(lease, Failure(code="c", message="m"))
    shop.wait(59)
    shop.sweeper.sweep()
    assert len(shop.files()) == 2
    shop.wait(2)
    shop.sweeper.sweep()
    assert shop.files() == []
    assert sum(shop.ledger.counts().values()) == 0
    with pytest.raises(UnknownRequest):
        shop.ledger.job("joba")


def test_a_job_that_waits_is_kept_however_old(shop):
    """Only what has ended expires: a queued job's inputs outlive any retention."""
    shop.submit("joba")
    shop.wait(10 * ORPHAN_AGE_S)
    shop.sweeper.sweep()
    assert shop.files() == [input_name("joba", "image")]


def test_a_silent_worker_loses_its_job(shop):
    """A job whose lease has run out, and is not prolonged in the time that this takes, is queued again, and said so."""
    shop.submit("joba")
    shop.ledger.claim("w")
    assert shop.sweeper.sweep() == []
    shop.wait(31)
    assert shop.sweeper.sweep() == []
    shop.wait(GRACE * 30 - 1)
    assert shop.sweeper.sweep() == []
    shop.wait(1)
    (job,) = shop.sweeper.sweep()
    assert (job.id, job.state) == ("joba", State.QUEUED)


def test_a_dead_workers_job_does_not_wait_for_the_usual_sweep(shop):
    """The sweep that may take a lease comes sooner than usual, and not before a live worker's next heartbeat."""
    shop.submit("joba")
    shop.ledger.claim("w")
    shop.sweeper.sweep()
    assert shop.sweeper.interval_s == 10
    shop.wait(31)
    shop.sweeper.sweep()
    assert 30 / HEARTBEATS_A_LEASE < shop.sweeper.interval_s < 10
    shop.wait(shop.sweeper.interval_s)
    assert len(shop.sweeper.sweep()) == 1
    assert shop.sweeper.sweep() == []
    assert shop.sweeper.interval_s == 10


def test_a_live_worker_keeps_its_job_when_the_clock_is_set_forward(shop):
    """However often: each time its next heartbeat comes before the lease is taken."""
    shop.submit("joba")
    _, lease = shop.ledger.claim("w")
    for _ in range(20):
        shop.now += 3600
        for _ in range(2):
            assert shop.sweeper.sweep() == []
            shop.wait(5)
            assert shop.ledger.heartbeat("w", [lease]) == frozenset()


def test_a_live_worker_keeps_its_job_when_nobody_could_write(shop):
    """Where the lock is held elsewhere for longer than a lease, it makes no difference who gets it first afterwards."""
    shop.submit("joba")
    _, lease = shop.ledger.claim("w")
    for _ in range(3):
        shop.sweeper.sweep()
        with closing(sqlite3.connect(shop.path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
            other.execute("BEGIN IMMEDIATE")
            sweeping = pool.submit(shop.sweeper.sweep)
            assert not wait([sweeping], timeout=0.1).done
            shop.wait(40)
            other.execute("ROLLBACK")
            assert sweeping.result(timeout=30) == []
        assert shop.ledger.heartbeat("w", [lease]) == frozenset()
        shop.wait(8)


def test_nothing_is_deleted_right_after_the_clock_jumped(shop):
    """A clock that is set forward by more than the retention, and set right within the minute, costs no result."""
    shop.submit("joba")
    _, lease = shop.ledger.claim("w")
    shop.ledger.fail(lease, Failure(code="c", message="m"))
    shop.put(upload_name("k", "a.png", expires_at=int(START + 60)))
    shop.put(input_name("jobnever", "image"))
    shop.wait(10)
    shop.sweeper.sweep()
    shop.now += 10 * ORPHAN_AGE_S
    with capture_logs() as logs:
        shop.sweeper.sweep()
        shop.wait(TIDY_S - 1)
        shop.sweeper.sweep()
    assert [entry["by_s"] for entry in logs] == [10 * ORPHAN_AGE_S]
    assert len(shop.files()) == 3
    shop.wait(1)
    shop.sweeper.sweep()
    assert shop.files() == []
    assert sum(shop.ledger.counts().values()) == 0


def test_a_clock_that_goes_a_little_wrong_is_trusted(shop):
    """Corrections of seconds put nothing off, also where they add up."""
    shop.put(input_name("jobnever", "image"))
    for _ in range(ORPHAN_AGE_S // 60 + 1):
        shop.wait(TIDY_S)
        shop.now += 20
        shop.sweeper.sweep()
    assert shop.files() == []


def test_files_of_no_job_go_once_they_are_old(shop):
    """What a killed submit left is deleted, but not while the submit may still be under way."""
    shop.put(input_name("jobnever", "image"))
    shop.sweeper.sweep()
    assert shop.files() != []
    shop.wait(ORPHAN_AGE_S + 1)
    shop.sweeper.sweep()
    assert shop.files() == []


@pytest.mark.parametrize("stray", ["uploads/README.txt", "jobs/x/notes.txt", "jobs/notes.txt", "uploads/k/a.png"])
def test_a_file_of_nobodys_stops_nothing(shop, stray):
    """What somebody else has put there stays, is said once, and everything else goes as it should."""
    shop.put(stray)
    shop.put(input_name("jobnever", "image"))
    shop.put(upload_name("k", "a.png", expires_at=int(START)))
    with capture_logs() as logs:
        for _ in range(3):
            shop.wait(ORPHAN_AGE_S + 1)
            shop.sweeper.sweep()
    assert shop.files() == [stray]
    assert [entry["blob"] for entry in logs if entry["log_level"] == "warning"] == [stray]


def test_left_overs_go_also_after_the_clock_was_set_back(shop):
    """How often they are looked for does not depend on what the clock says."""
    shop.sweeper.sweep()
    shop.now -= 86_400
    shop.put(input_name("jobnever", "image"))
    for _ in range(ORPHAN_AGE_S // TIDY_S + 2):
        shop.wait(TIDY_S)
        shop.sweeper.sweep()
    assert shop.files() == []


def test_uploads_go_when_their_time_is_over(shop):
    """An upload belongs to no job, and is kept until the moment in its name, however old it is."""
    shop.put(upload_name("k", "a.png", expires_at=int(START + 10 * ORPHAN_AGE_S)))
    shop.put(upload_name("k", "b.png", expires_at=int(START + 11 * ORPHAN_AGE_S)))
    shop.wait(10 * ORPHAN_AGE_S - 1)
    shop.sweeper.sweep()
    assert len(shop.files()) == 2
    shop.wait(TIDY_S)
    shop.sweeper.sweep()
    assert shop.files() == [upload_name("k", "b.png", expires_at=int(START + 11 * ORPHAN_AGE_S))]
