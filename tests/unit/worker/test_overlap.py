"""While a job is made, the next one is prepared and the last one's picture written."""

import errno
import time

import pytest

from darkroom.edit import PictureRef
from darkroom.errors import OutOfMemory
from darkroom.job import Lease, Stage, State
from darkroom.ledger.contract import MAX_ATTEMPTS
from darkroom.worker import ahead, loop
from darkroom.worker.messages import Advanced, Released
from ledgers import CRASH
from workbench import STEPS, Marks, inverted, png

WIDE, TALL = png((12, 4)), png((4, 12))


@pytest.fixture
def marks():
    return Marks()


def at_write(job_id, then):
    """For `at_told`: `then` is called, in the thread that finishes the job, before its picture is written."""

    def told(message):
        if isinstance(message, Advanced) and (message.job_id, message.stage) == (job_id, Stage.WRITE):
            then()

    return told


def at_result(job_id, then):
    """For `at_put`: `then` is called when the job's file is written, before it is put."""

    def put(name):
        if f"/{job_id}/result-" in name:
            then()

    return put


class TestLookingAhead:
    def test_the_next_job_is_prepared_while_one_is_made(self, bench, marks):
        """The second job's preparation begins before the first is made, serves its attempt, and is counted in its
        times."""
        first, second = bench.submit(WIDE), bench.submit(TALL)

        def prepare(job_id):
            if job_id == second:
                time.sleep(0.05)
                marks.reach("prepared")

        def step(number):
            if bench.engine.making == first and number == STEPS:
                marks.wait("prepared")

        bench.engine.at_prepare, bench.engine.at_step = prepare, step
        bench.run()
        assert bench.engine.prepared == [first, second]
        assert [bench.pixels(first), bench.pixels(second)] == [inverted(WIDE), inverted(TALL)]
        timings_s = bench.ledger.job(second).result.timings_s
        assert set(timings_s) == {"fetch", "prepare", "denoise", "write"}
        assert timings_s["prepare"] >= 0.05

    def test_a_preparation_under_way_is_waited_for(self, bench, marks):
        """A job that is claimed while it is still being prepared is not prepared a second time."""
        first, second = bench.submit(), bench.submit()

        def prepare(job_id):
            if job_id == second:
                marks.wait("claimed")

        def told(message):
            if isinstance(message, Advanced) and message.job_id == second:
                marks.reach("claimed")

        bench.engine.at_prepare, bench.at_told = prepare, told
        bench.run()
        assert bench.engine.prepared == [first, second]
        assert bench.states(first, second) == [State.COMPLETED] * 2

    def test_a_cancel_is_heard_while_a_preparation_is_waited_for(self, bench, marks, monkeypatch):
        """However long it takes, the job says that it is alive, and ends when it is told to."""
        monkeypatch.setattr(ahead, "WAIT_S", 0.01)
        first, second = bench.submit(), bench.submit()

        def prepare(job_id):
            if job_id == second:
                marks.wait("cancelled")

        def told(message):
            if isinstance(message, Advanced) and (message.job_id, message.stage) == (second, Stage.PREPARE):
                bench.ledger.cancel(second)
            if isinstance(message, Released) and message.job_id == second:
                marks.reach("cancelled")

        bench.engine.at_prepare, bench.at_told = prepare, told
        bench.run()
        assert bench.states(first, second) == [State.COMPLETED, State.FAILED]

    def test_nothing_is_leased_ahead(self, bench, marks):
        """A job prepared ahead is still queued: no attempt is counted before it is its turn."""
        first, second = bench.submit(), bench.submit()
        seen = []

        def step(number):
            if bench.engine.making == first and number == STEPS:
                marks.wait("prepared")
                seen.append((bench.ledger.job(second).state, bench.ledger.job(second).attempt))

        bench.engine.at_prepare = lambda job_id: marks.reach("prepared") if job_id == second else None
        bench.engine.at_step = step
        bench.run()
        assert seen == [(State.QUEUED, 0)]

    def test_another_job_s_preparation_is_not_used(self, bench, marks):
        """When the job prepared ahead is gone, the one that goes instead is made of its own picture."""
        first, gone = bench.submit(WIDE), bench.submit(WIDE)
        instead = []

        def step(number):
            if bench.engine.making == first and number == STEPS:
                marks.wait("prepared")
                bench.ledger.cancel(gone)
                instead.append(bench.submit(TALL))

        bench.engine.at_prepare = lambda job_id: marks.reach("prepared") if job_id == gone else None
        bench.engine.at_step = step
        bench.run()
        assert bench.engine.prepared == [first, gone, *instead]
        assert bench.engine.made == [first, *instead]
        assert bench.pixels(instead[0]) == inverted(TALL)

    def test_a_job_submitted_while_one_is_made_is_prepared_ahead(self, bench, marks):
        """The queue is looked at again at every step."""
        first = bench.submit()
        second = []

        def step(number):
            if bench.engine.making == first and number == 1:
                second.append(bench.submit())
            if bench.engine.making == first and number == STEPS:
                marks.wait("prepared")

        bench.engine.at_prepare = lambda job_id: marks.reach("prepared") if job_id != first else None
        bench.engine.at_step = step
        bench.run()
        assert bench.engine.prepared == [first, *second]

    def test_what_fails_ahead_is_tried_again_by_the_job(self, bench, marks):
        """A fault that has gone by the time of the job's turn costs it nothing."""
        first, second = bench.submit(), bench.submit()
        faults = iter([RuntimeError("once")])

        def prepare(job_id):
            if job_id == second:
                marks.reach("tried")
                for fault in faults:
                    raise fault

        bench.engine.at_prepare = prepare
        bench.engine.at_step = lambda step: marks.wait("tried")
        bench.run()
        job = bench.ledger.job(second)
        assert (job.state, job.attempt) == (State.COMPLETED, 1)
        assert bench.engine.prepared == [first, second, second]

    def test_a_fault_of_the_job_s_own_is_its_own(self, bench):
        """A picture or an address at fault ends its job at the first attempt, as if nobody had looked; its neighbours
        are made."""
        forbidden = (PictureRef(field="image", url="http://127.0.0.1:9/x.png"),)
        before, bad, worse, after = (
            bench.submit(),
            bench.submit(b"<html>"),
            bench.submit(pictures=forbidden),
            bench.submit(),
        )
        bench.run()
        failures = [
            (bench.ledger.job(job_id).failure.code, bench.ledger.job(job_id).attempt) for job_id in (bad, worse)
        ]
        assert failures == [("image_invalid", 1), ("image_address_forbidden", 1)]
        assert bench.states(before, after) == [State.COMPLETED] * 2


class TestAlone:
    """A job that has cost an attempt shares the process with nobody."""

    def test_nothing_is_prepared_beside_a_second_attempt(self, bench):
        """The next job is left alone until the one that has crashed has ended."""
        first = bench.submit()
        second = []
        order = []

        def step(number):
            attempt = bench.ledger.job(bench.engine.making).attempt
            if bench.engine.making == first and attempt == 1:
                raise RuntimeError("once")
            if bench.engine.making == first and number == 1:
                second.append(bench.submit())

        def told(message):
            if isinstance(message, Released):
                order.append(("released", message.job_id))

        bench.engine.at_prepare = lambda job_id: order.append(("prepared", job_id))
        bench.engine.at_step, bench.at_told = step, told
        bench.run()
        assert bench.ledger.job(first).attempt == 2
        assert order == [
            ("prepared", first),
            ("released", first),
            ("prepared", first),
            ("released", first),
            ("prepared", *second),
            ("released", *second),
        ]

    def test_a_second_attempt_waits_for_what_is_being_prepared(self, bench, marks):
        """What the first attempt's look ahead has begun is over before the second one's first step."""
        first, second = bench.submit(), bench.submit()
        over_at_step = []

        def prepare(job_id):
            if job_id == second:
                marks.reach("preparing")
                time.sleep(0.1)
                marks.reach("over")

        def step(number):
            if bench.engine.making == first and bench.ledger.job(first).attempt == 1:
                marks.wait("preparing")
                raise RuntimeError("once")
            over_at_step.append(marks.reached("over"))

        bench.engine.at_prepare, bench.engine.at_step = prepare, step
        bench.run()
        assert bench.states(first, second) == [State.COMPLETED] * 2
        assert all(over_at_step)

    def test_a_job_that_has_crashed_is_not_prepared_beside_another(self, bench):
        """It is left for its own turn, even where it is the next to go."""
        crashed = bench.submit()
        _, lease = bench.ledger.claim("elsewhere")
        first = bench.submit()

        def step(number):
            if bench.engine.making == first and number == 1:
                bench.ledger.retry(lease, CRASH)
            if bench.engine.making == first and number == STEPS:
                assert bench.engine.prepared == [first]

        bench.engine.at_step = step
        bench.run()
        assert bench.engine.made == [first, crashed]
        assert bench.engine.prepared == [first, crashed]

    def test_a_second_attempt_waits_for_the_job_before_it(self, bench):
        """It is not made while another's picture is being written; nor is another made while its own is."""
        crashed = bench.submit()
        _, lease = bench.ledger.claim("elsewhere")
        first = bench.submit()
        last = []
        written = []

        def write(name):
            if "result-" in name:
                made = len(bench.engine.made)
                time.sleep(0.1)
                assert len(bench.engine.made) == made
                written.append(bench.engine.making)

        def step(number):
            if bench.engine.making == first and number == 1:
                bench.ledger.retry(lease, CRASH)
                last.append(bench.submit())

        bench.blobs.at_put, bench.engine.at_step = write, step
        bench.run()
        assert written == [first, crashed, *last]


class TestFinishing:
    def test_a_picture_is_written_while_the_next_is_made(self, bench, marks):
        """The first job is completed beside the second one's steps; each has its own picture and its own end."""
        first, second = bench.submit(WIDE), bench.submit(TALL)
        bench.at_told = at_write(first, lambda: marks.wait("second"))
        bench.engine.at_step = lambda step: marks.reach("second") if bench.engine.making == second else None
        bench.run()
        assert [bench.pixels(first), bench.pixels(second)] == [inverted(WIDE), inverted(TALL)]
        assert bench.ledger.keys()[0].spent_micro == 20
        assert [message.job_id for message in bench.told if isinstance(message, Released)] == [first, second]

    def test_one_at_a_time(self, bench, marks):
        """A second picture waits for the first to be settled: the worker holds two jobs at most."""
        jobs = [bench.submit() for _ in range(4)]
        held = []

        def told(message):
            held.append(bench.ledger.counts()[State.PROCESSING])

        bench.at_told = told
        bench.run()
        assert bench.states(*jobs) == [State.COMPLETED] * 4
        assert max(held) == 2

    def test_a_cancel_before_the_picture_is_written(self, bench, marks):
        """It ends the job it is for, and not the one that is being made."""
        first, second = bench.submit(), bench.submit()

        def cancel():
            marks.wait("second")
            bench.ledger.cancel(first)

        bench.at_told = at_write(first, cancel)
        bench.engine.at_step = lambda step: marks.reach("second") if bench.engine.making == second else None
        bench.run()
        assert bench.ledger.job(first).failure.code == "cancelled"
        assert bench.states(second) == [State.COMPLETED]
        assert bench.ledger.keys()[0].spent_micro == 10

    def test_a_lease_lost_while_the_picture_is_written(self, bench):
        """The job is another's then: nothing is settled, no file stays behind, the job being made is not touched."""
        first, second = bench.submit(), bench.submit()

        def lose():
            if bench.ledger.job(first).attempt == 1:
                bench.ledger.retry(Lease(job_id=first, attempt=1, fence=1), CRASH)

        bench.blobs.at_put = at_result(first, lose)
        bench.run()
        assert (bench.ledger.job(first).state, bench.ledger.job(first).attempt) == (State.COMPLETED, 2)
        assert (bench.ledger.job(second).state, bench.ledger.job(second).attempt) == (State.COMPLETED, 1)
        results = {name for name, _ in bench.blobs.names() if "result" in name}
        assert results == {bench.ledger.job(job_id).result.blob for job_id in (first, second)}

    def test_a_picture_that_finds_no_room(self, bench, monkeypatch):
        """A full disk is no job's fault: it costs none an attempt, and none is begun before some time has passed."""
        monkeypatch.setattr(loop, "REST_S", 0.2)
        first, second = bench.submit(), bench.submit()
        tried = []

        def full():
            tried.append(time.monotonic())
            if len(tried) <= MAX_ATTEMPTS:
                raise OSError(errno.ENOSPC, "No space left on device")

        bench.blobs.at_put = at_result(first, full)
        bench.run()
        assert [bench.ledger.job(job_id).attempt for job_id in (first, second)] == [1, 1]
        assert bench.states(first, second) == [State.COMPLETED] * 2
        assert tried[-1] - tried[0] >= MAX_ATTEMPTS * 0.2

    def test_a_drain_ends_what_is_being_finished(self, bench, marks):
        """A worker told to go at once gives back the job it makes, and leaves when the other's picture is kept."""
        first, second = bench.submit(), bench.submit()

        def write():
            marks.wait("drained")
            time.sleep(0.1)

        def step(number):
            if bench.engine.making == second:
                bench.drain(grace_s=0)
                marks.reach("drained")

        bench.blobs.at_put, bench.engine.at_step = at_result(first, write), step
        bench.run()
        assert bench.states(first, second) == [State.COMPLETED, State.QUEUED]
        assert bench.ledger.job(second).attempt == 0

    def test_out_of_memory_beside_a_picture_being_written(self, bench, marks):
        """The worker ends to be replaced, but not before the picture is kept."""
        first, second = bench.submit(), bench.submit()

        def write():
            marks.wait("out of memory")
            time.sleep(0.1)

        def step(number):
            if bench.engine.making == second:
                marks.reach("out of memory")
                raise OutOfMemory("16 GB needed, 8 GB free")

        bench.blobs.at_put, bench.engine.at_step = at_result(first, write), step
        with pytest.raises(OutOfMemory):
            bench.run()
        assert bench.states(first, second) == [State.COMPLETED, State.QUEUED]
        assert bench.ledger.job(second).attempt == 1

    def test_a_ledger_that_fails_ends_the_worker(self, bench, monkeypatch):
        """What keeps a job from being settled is not passed over: the worker is to be replaced."""
        bench.submit()

        def fail(*_):
            raise OSError("the ledger's disk is gone")

        monkeypatch.setattr(bench.ledger, "complete", fail)
        monkeypatch.setattr(bench.ledger, "retry", fail)
        bench.at_told = lambda message: bench.drain(grace_s=60)
        with pytest.raises(OSError, match="disk is gone"):
            bench.run()
