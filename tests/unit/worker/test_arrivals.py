"""Pictures and LoRAs that come by address are brought before their jobs are claimed."""

import asyncio
import threading
from pathlib import Path

import pytest

from darkroom.edit import LoraRef, PictureRef
from darkroom.errors import PictureUnreachable
from darkroom.job import State
from darkroom.lora.convert import AdapterFile
from darkroom.worker.arrivals import SLOTS
from workbench import STEPS, Marks, png


class Host:
    """Answers each address when `at_asked` lets it. asked: the addresses, in order."""

    def __init__(self):
        self.asked = []
        self.at_asked = lambda url: None

    async def fetch(self, url, *, field):
        self.asked.append(url)
        await asyncio.to_thread(self.at_asked, url)
        return png()


@pytest.fixture
def marks():
    return Marks()


@pytest.fixture
def host(bench):
    bench.fetcher = Host()
    return bench.fetcher


def at(url):
    return (PictureRef(field="image", url=url),)


def test_a_slow_host_holds_up_its_own_job_alone(bench, host, marks):
    """Jobs behind it are made while it is waited for; it is still queued, and made when its picture has come."""
    slow, others = bench.submit(pictures=at("slow")), [bench.submit(), bench.submit(pictures=at("quick"))]
    waiting = []

    def step(number):
        if bench.engine.making == others[-1] and number == STEPS:
            waiting.append(bench.ledger.job(slow).state)
            marks.reach("others are made")

    host.at_asked = lambda url: marks.wait("others are made") if url == "slow" else None
    bench.engine.at_step = step
    bench.run()
    assert bench.engine.made == [*others, slow]
    assert waiting == [State.QUEUED]
    assert sorted(host.asked) == ["quick", "slow"]


def test_many_slow_hosts_hold_up_nobody_else(bench, host, marks):
    """Also where more of them are waited for than can be asked at once, which is done as soon as others have ended."""
    slow = [bench.submit(pictures=at(f"slow {number}")) for number in range(SLOTS + 3)]
    other = bench.submit()
    asked_before = []

    def step(number):
        if bench.engine.making == other and number == STEPS:
            asked_before.append(len(host.asked))
            marks.reach("the other is made")

    host.at_asked = lambda url: marks.wait("the other is made")
    bench.engine.at_step = step
    bench.run()
    assert bench.engine.made[0] == other
    assert asked_before == [SLOTS]
    assert bench.states(*slow) == [State.COMPLETED] * len(slow)
    assert sorted(host.asked) == sorted(f"slow {number}" for number in range(len(slow)))


def test_several_are_asked_at_once(bench, host):
    """As many as there are slots wait for one another's answer."""
    together = threading.Barrier(SLOTS)
    jobs = [bench.submit(pictures=at(f"{number}")) for number in range(SLOTS)]
    host.at_asked = lambda url: together.wait(10)
    bench.run()
    assert bench.states(*jobs) == [State.COMPLETED] * SLOTS


def test_a_picture_that_does_not_come_is_asked_for_once(bench, host):
    """Its job ends with what was wrong, at its first attempt; the device has not waited for it twice."""

    def refuse(url):
        raise PictureUnreachable("image: no answer", field="image")

    host.at_asked = refuse
    job_id = bench.submit(pictures=at("nowhere"))
    bench.run()
    job = bench.ledger.job(job_id)
    assert (job.failure.code, job.attempt, host.asked) == ("image_unreachable", 1, ["nowhere"])


def test_an_unforeseen_fault_is_met_again_by_the_job(bench, host):
    """If it has gone by then, it has cost nothing."""
    faults = iter([OSError("once")])

    def stumble(url):
        for fault in faults:
            raise fault

    host.at_asked = stumble
    job_id = bench.submit(pictures=at("a"))
    bench.run()
    assert (bench.ledger.job(job_id).state, bench.ledger.job(job_id).attempt) == (State.COMPLETED, 1)


def test_a_job_is_cancelled_while_its_picture_is_waited_for(bench, host, marks):
    """At once, and whatever comes afterwards is nobody's."""
    slow, other = bench.submit(pictures=at("slow")), bench.submit()

    def step(number):
        if bench.engine.making == other and number == STEPS:
            marks.wait("asked")
            bench.ledger.cancel(slow)
            marks.reach("cancelled")

    def asked(url):
        marks.reach("asked")
        marks.wait("cancelled")

    host.at_asked, bench.engine.at_step = asked, step
    bench.run()
    assert bench.ledger.job(slow).failure.code == "cancelled"
    assert bench.engine.made == [other]


def test_the_time_it_took_is_the_job_s(bench, host):
    """It stands in its timings, though it was queued then."""
    host.at_asked = lambda url: threading.Event().wait(0.1)
    job_id = bench.submit(pictures=at("slow"))
    bench.run()
    assert bench.ledger.job(job_id).result.timings_s["fetch"] >= 0.1


def test_a_lora_is_brought_as_a_picture_is(bench, marks):
    """A slow download holds up its own job alone."""
    here = set()

    class Slow:
        def is_here(self, ref):
            return ref.url in here

        async def fetch(self, ref):
            await asyncio.to_thread(marks.wait, "the other is made")
            here.add(ref.url)

        async def bring(self, ref):
            return AdapterFile(path=Path("any"), digest=ref.digest, strength=ref.strength)

    bench.adapters = Slow()
    lora = LoraRef(field="lora", name="oil", url="http://loras.example/oil", digest="oil", strength=1.0)
    styled, other = bench.submit(loras=(lora,)), bench.submit()

    def step(number):
        if bench.engine.making == other and number == STEPS:
            marks.reach("the other is made")

    bench.engine.at_step = step
    bench.run()
    assert bench.engine.made == [other, styled]
    assert "loras" in bench.ledger.job(styled).result.timings_s
