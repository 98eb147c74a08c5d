"""The worker's loop: one job after another."""

from io import BytesIO

import pytest
from PIL import Image

from darkroom.blobs.names import input_name
from darkroom.edit import PictureRef
from darkroom.errors import EngineFailed, OutOfMemory
from darkroom.job import State
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.worker import loop
from darkroom.worker.messages import Advanced, Released
from workbench import STEPS, inverted, png


def test_a_job_is_made_kept_and_charged(bench):
    """The picture the engine made is in the blob store, the job COMPLETED and paid for, its stages told in order."""
    job_id = bench.submit()
    bench.run()
    job = bench.ledger.job(job_id)
    assert job.state == State.COMPLETED
    assert bench.pixels(job_id) == inverted(png())
    assert (job.result.width_px, job.result.height_px) == (8, 6)
    assert job.result.size_bytes == len(bench.blobs.get(job.result.blob))
    assert set(job.result.timings_s) == {"fetch", "prepare", "denoise", "write"}
    stages = [message.stage for message in bench.told if isinstance(message, Advanced)]
    assert list(dict.fromkeys(stages)) == ["fetch", "prepare", "encode", "denoise", "write"]
    assert bench.told[-1] == Released(job_id=job_id)
    assert bench.ledger.keys()[0].spent_micro == 10


def test_a_job_of_another_checkpoint_is_not_made(bench, tmp_path):
    """It ends FAILED and its price goes back: from this engine it would be another picture. One of this checkpoint is
    made, by whatever path that was named, and so is one from before checkpoints were noted."""
    (tmp_path / "model").mkdir()
    bench.settings = bench.settings.model_copy(update={"checkpoint": f"{tmp_path}/./model"})
    other, own, old = (bench.submit(checkpoint=name) for name in ("x/y", str(tmp_path / "model"), None))
    bench.run()
    assert bench.states(other, own, old) == [State.FAILED, State.COMPLETED, State.COMPLETED]
    failure = bench.ledger.job(other).failure
    assert failure.code == "model_changed"
    assert "send it again" in failure.message
    assert bench.ledger.keys()[0].spent_micro == 20
    assert bench.ledger.keys()[0].held_micro == 0


def test_a_result_says_how_it_was_made(bench):
    """Seed, model and request id are in the file, unless the operator wants none of it there."""
    job_id = bench.submit()
    bench.run()
    said = Image.open(BytesIO(bench.blobs.get(bench.ledger.job(job_id).result.blob))).text
    assert said == {"seed": "1", "slug": "s", "request_id": job_id}


def test_a_result_that_says_nothing(bench):
    """Without `result_metadata` the file is pixels and a colour space."""
    bench.settings = bench.settings.model_copy(update={"result_metadata": False})
    job_id = bench.submit()
    bench.run()
    assert Image.open(BytesIO(bench.blobs.get(bench.ledger.job(job_id).result.blob))).text == {}


def test_a_cancel_stops_the_job_at_the_next_step(bench):
    """A cancel that arrives in a step ends the job before the one after it, and its price goes back."""
    job_id = bench.submit()
    steps = []

    def meddle(step):
        steps.append(step)
        if step == 2:
            bench.ledger.cancel(job_id)

    bench.engine.at_step = meddle
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.state, job.failure.code) == (State.FAILED, "cancelled")
    assert steps == [1, 2]
    assert bench.ledger.keys()[0].balance_micro == 1000


def test_a_picture_at_fault_fails_the_job_at_once(bench):
    """A file that is no picture ends the job FAILED at its first attempt, with the field; the next job is made."""
    bad, good = bench.submit(b"<html>"), bench.submit()
    bench.run()
    job = bench.ledger.job(bad)
    assert (job.state, job.attempt, job.failure.code, job.failure.field) == (State.FAILED, 1, "image_invalid", "image")
    assert bench.ledger.job(good).state == State.COMPLETED


def test_a_forbidden_address_fails_the_job(bench):
    """A picture on a private address is never asked for."""
    job_id = bench.submit(pictures=(PictureRef(field="image", url="http://127.0.0.1:9/x.png"),))
    bench.run()
    assert bench.ledger.job(job_id).failure.code == "image_address_forbidden"


def test_what_was_fetched_is_used_again(bench):
    """A retried job works on the bytes its first attempt fetched, not on what the address says now."""
    job_id = bench.submit(pictures=(PictureRef(field="image", url="http://127.0.0.1:9/x.png"),))
    bench.blobs.put(input_name(job_id, "image"), png())
    bench.run()
    assert bench.ledger.job(job_id).state == State.COMPLETED


def test_an_engine_error_is_retried_then_fails(bench):
    """Something unforeseen costs an attempt; the third ends the job with a code and no internals."""
    job_id = bench.submit()

    def meddle(step):
        raise ZeroDivisionError("a secret")

    bench.engine.at_step = meddle
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.state, job.attempt, job.failure.code) == (State.FAILED, 3, EngineFailed.code)
    assert "secret" not in job.failure.message
    assert job_id in job.failure.message


def test_an_unforeseen_error_once_costs_one_attempt(bench):
    """A job whose first attempt fails by chance is made by the second."""
    job_id = bench.submit()
    failures = iter([RuntimeError("once")])

    def meddle(step):
        for error in failures:
            raise error

    bench.engine.at_step = meddle
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.state, job.attempt) == (State.COMPLETED, 2)


def test_out_of_memory_ends_the_worker(bench):
    """The process is left to be replaced, its job back in the queue."""
    job_id = bench.submit()

    def meddle(step):
        raise OutOfMemory("16 GB needed, 8 GB free")

    bench.engine.at_step = meddle
    with pytest.raises(OutOfMemory):
        bench.run()
    assert bench.ledger.job(job_id).state == State.QUEUED


def test_a_drain_gives_the_running_job_back(bench):
    """When the grace is over the job goes back to the queue at the next step, and the attempt doesn't count."""
    job_id = bench.submit()
    bench.engine.at_step = lambda step: bench.drain(grace_s=0)
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    assert bench.engine.made == []


def test_a_drain_with_grace_lets_the_running_job_end(bench):
    """Within the grace the running job is finished, and the next one left alone."""
    jobs = bench.submit(), bench.submit()
    bench.engine.at_step = lambda step: bench.drain(grace_s=60)
    bench.run()
    assert {bench.ledger.job(job).state for job in jobs} == {State.COMPLETED, State.QUEUED}


def test_nothing_is_begun_without_room_for_its_picture(bench, monkeypatch):
    """A job waits while the disk has none; it has not been claimed meanwhile."""
    answers = iter([False, False])
    attempts = []

    def has_room(settings):
        attempts.append(bench.ledger.job(job_id).attempt)
        return next(answers, True)

    monkeypatch.setattr(loop, "has_room", has_room)
    monkeypatch.setattr(loop, "POLL_S", 0.01)
    job_id = bench.submit()
    bench.run()
    assert bench.ledger.job(job_id).state == State.COMPLETED
    assert attempts[:3] == [0, 0, 0]


def test_a_lost_lease_leaves_no_result(bench, tmp_path):
    """A worker whose lease ran out while it worked settles nothing and leaves no file behind."""
    job_id = bench.submit()

    def meddle(step):
        if step == STEPS:
            bench.engine.at_step = lambda step: None
            later = SqliteLedger(tmp_path / "ledger.db", lease_s=30, retention_s=60, clock=lambda: 10**11)
            later.reap(later.overdue())
            later.close()

    bench.engine.at_step = meddle
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.state, job.attempt) == (State.COMPLETED, 2)
    results = [name for name, _ in bench.blobs.names() if "result" in name]
    assert results == [job.result.blob]
