"""What the service makes of its worker's messages."""

import asyncio
import time

from darkroom.job import Stage
from darkroom.settings import Settings
from darkroom.worker.messages import Advanced, Ready, Released, to_line
from darkroom.worker.supervisor import LATE_S, Readiness, Supervisor

READY = Ready(checkpoint="c", device="cpu", dtype="float32")
PATIENCE_S = 20


def supervisor(folder, **settings):
    return Supervisor(settings=Settings(data=folder, **settings), ledger=None, on_change=lambda job_id: None)


def at(job_id, stage):
    return Advanced(job_id=job_id, stage=stage, step=1, steps=9)


async def heard(supervised, *messages, then=lambda send: asyncio.sleep(0)):
    """What `_attend` ends with when the worker says this, does `then`, and closes its pipe."""
    lines = asyncio.StreamReader()

    def send(message):
        lines.feed_data(to_line(message))

    for message in messages:
        send(message)
    attending = asyncio.create_task(supervised._attend(lines))
    await then(send)
    if not attending.done():
        lines.feed_eof()
    return await asyncio.wait_for(attending, PATIENCE_S)


def test_a_job_that_hangs_is_not_hidden_by_the_one_beside_it(tmp_path):
    """One job's steps are no sign of life of the other's picture."""
    supervised = supervisor(tmp_path, step_deadline_s=0.2)

    async def step_on(send):
        for _ in range(40):
            send(at("made", Stage.DENOISE))
            await asyncio.sleep(0.01)

    reason = asyncio.run(heard(supervised, READY, at("finished", Stage.WRITE), then=step_on))
    assert reason == "hung: nothing heard for 0.2 s in write (step 1 of 9)"


def test_a_job_that_has_ended_is_waited_for_no_longer(tmp_path):
    """Neither it nor the idle worker has a deadline."""
    supervised = supervisor(tmp_path, step_deadline_s=0.05)
    messages = [READY, at("a", Stage.WRITE), at("b", Stage.ENCODE), Released(job_id="a"), Released(job_id="b")]
    assert asyncio.run(heard(supervised, *messages, then=lambda _: asyncio.sleep(0.2))) is None


def test_a_service_that_stood_still_blames_no_worker(tmp_path):
    """What the worker said meanwhile lies in the pipe, and is read before anything is made of a deadline."""
    supervised = supervisor(tmp_path, step_deadline_s=0.1)

    async def stand_still(send):
        await asyncio.sleep(0.01)
        time.sleep(LATE_S + 0.1)  # noqa: ASYNC251  the loop is to stand still
        asyncio.get_running_loop().call_soon(send, Released(job_id="a"))
        await asyncio.sleep(0.2)

    assert asyncio.run(heard(supervised, READY, at("a", Stage.DENOISE), then=stand_still)) is None


def test_a_worker_that_is_being_started_is_drained_too(tmp_path):
    """It is not left to load its model; and since it was called off, nothing it had would have lost an attempt."""
    released = []

    class Ledger:
        def release(self, worker, failure):
            released.append(failure)
            return []

    supervised = Supervisor(settings=Settings(data=tmp_path), ledger=Ledger(), on_change=lambda job_id: None)

    async def drain_at_once():
        running = asyncio.create_task(supervised.run())
        await asyncio.sleep(0)
        supervised.drain()
        await asyncio.wait_for(running, PATIENCE_S)

    asyncio.run(drain_at_once())
    assert released == [None]
    assert supervised.health.state == Readiness.STOPPING


def test_both_jobs_are_held_until_they_are_released(tmp_path):
    """The service waits for whatever the worker has in hand."""
    supervised = supervisor(tmp_path)
    asyncio.run(heard(supervised, READY, at("a", Stage.WRITE), at("b", Stage.ENCODE)))
    assert [supervised.holds(job_id) for job_id in "abc"] == [True, True, False]
    asyncio.run(heard(supervised, READY, Released(job_id="a")))
    assert [supervised.holds(job_id) for job_id in "abc"] == [False, True, False]


def test_a_worker_that_does_not_get_ready_is_told_as_such(tmp_path):
    """Loading has its own, longer deadline."""
    supervised = supervisor(tmp_path, setup_deadline_s=0.05)
    reason = asyncio.run(heard(supervised, then=lambda _: asyncio.sleep(0.2)))
    assert reason == "hung: nothing heard for 0.05 s in setup"
