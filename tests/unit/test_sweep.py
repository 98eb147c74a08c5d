"""The sweeper, on a real ledger and folder, with a clock that the test sets."""

import os

import pytest

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name, result_name, upload_name
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.errors import UnknownRequest
from darkroom.job import Failure, State
from darkroom.ledger.contract import Submission
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.sweep import ORPHAN_AGE_S, TIDY_S, Sweeper

START = 1_000_000.0


class Shop:
    def __init__(self, folder):
        self.now = START
        self.ledger = SqliteLedger(folder / "l.db", lease_s=30, retention_s=60, clock=lambda: self.now)
        self.blobs = Folder(folder / "blobs")
        self.sweeper = Sweeper(ledger=self.ledger, blobs=self.blobs, interval_s=1, clock=lambda: self.now)
        self.key = self.ledger.create_key(name="k", digest="d", granted_micro=1000)

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
    shop.now += 59
    shop.sweeper.sweep()
    assert len(shop.files()) == 2
    shop.now += 2
    shop.sweeper.sweep()
    assert shop.files() == []
    assert sum(shop.ledger.counts().values()) == 0
    with pytest.raises(UnknownRequest):
        shop.ledger.job("joba")


def test_a_job_that_waits_is_kept_however_old(shop):
    """Only what has ended expires: a queued job's inputs outlive any retention."""
    shop.submit("joba")
    shop.now += 10 * ORPHAN_AGE_S
    shop.sweeper.sweep()
    assert shop.files() == [input_name("joba", "image")]


def test_a_silent_worker_loses_its_job(shop):
    """A job whose lease has run out is queued again, and said so."""
    shop.submit("joba")
    shop.ledger.claim("w")
    assert shop.sweeper.sweep() == []
    shop.now += 31
    (job,) = shop.sweeper.sweep()
    assert (job.id, job.state) == ("joba", State.QUEUED)


def test_files_of_no_job_go_once_they_are_old(shop):
    """What a killed submit left is deleted, but not while the submit may still be under way."""
    shop.put(input_name("jobnever", "image"))
    shop.sweeper.sweep()
    assert shop.files() != []
    shop.now += ORPHAN_AGE_S + 1
    shop.sweeper.sweep()
    assert shop.files() == []


def test_uploads_go_when_their_time_is_over(shop):
    """An upload belongs to no job, and is kept until the moment in its name, however old it is."""
    shop.put(upload_name("k", "a.png", expires_at=int(START + 10 * ORPHAN_AGE_S)))
    shop.put(upload_name("k", "b.png", expires_at=int(START + 11 * ORPHAN_AGE_S)))
    shop.now += 10 * ORPHAN_AGE_S - 1
    shop.sweeper.sweep()
    assert len(shop.files()) == 2
    shop.now += TIDY_S
    shop.sweeper.sweep()
    assert shop.files() == [upload_name("k", "b.png", expires_at=int(START + 11 * ORPHAN_AGE_S))]
