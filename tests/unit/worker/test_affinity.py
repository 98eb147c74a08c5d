"""A worker goes on with the LoRAs that it has merged, and has the next job's merged ahead."""

from pathlib import Path

import pytest

from darkroom.edit import LoraRef, add_strengths, set_name
from darkroom.job import State
from darkroom.lora.convert import AdapterFile
from workbench import STEPS, Marks


class AtHand:
    """Adapters that need no bringing: a LoRA known by its address alone is found to have the address as its digest."""

    def is_here(self, ref):
        return True

    async def bring(self, ref):
        return AdapterFile(path=Path("any"), digest=ref.digest or ref.url, strength=ref.strength)


@pytest.fixture
def marks():
    return Marks()


@pytest.fixture
def bench(bench):
    bench.adapters = AtHand()
    return bench


def of(*digests):
    return tuple(LoraRef(field="lora", name=digest, digest=digest, strength=1.0) for digest in digests)


def named(*digests):
    return set_name(add_strengths((digest, 1.0) for digest in digests))


def test_jobs_of_one_set_are_made_together(bench):
    """Rather than in the order they came, so that sets are switched once each."""
    a, b = ([], [])
    for _ in range(3):
        a.append(bench.submit(loras=of("a")))
        b.append(bench.submit(loras=of("b")))
    bench.run()
    assert bench.engine.made == a + b
    assert bench.engine.merges == [named("a"), named("b")]


def test_the_job_prepared_ahead_is_the_one_made_next(bench, marks):
    """The look ahead counts what is merged while the job is made: nothing is prepared in vain."""
    jobs = [bench.submit(loras=of(digest)) for digest in "abab"]

    def step(number):
        if number == STEPS:
            marks.wait(f"prepared {len(bench.engine.made) + 2}")

    def prepare(job_id):
        marks.reach(f"prepared {len(bench.engine.prepared)}")

    marks.reach("prepared 5")
    bench.engine.at_step, bench.engine.at_prepare = step, prepare
    bench.run()
    assert bench.engine.prepared == bench.engine.made == [jobs[0], jobs[2], jobs[1], jobs[3]]


def test_a_set_is_known_by_both_its_names(bench):
    """One whose LoRA was not here when its jobs were accepted is held all the same once it has been merged."""
    elsewhere = (LoraRef(field="lora", name="u", url="a", validator="1", strength=1.0),)
    first = bench.submit(loras=elsewhere)
    other = bench.submit(loras=of("b"))
    again, known = bench.submit(loras=elsewhere), bench.submit(loras=of("a"))
    bench.run()
    assert bench.engine.made == [first, again, known, other]
    assert bench.engine.merges == [named("a"), named("b")]


def test_jobs_without_loras_go_in_their_turn(bench):
    """Whenever they go they take no merging: they pass nobody, and nobody passes them when they are the first."""
    jobs = [bench.submit(loras=of("a")), bench.submit(), bench.submit(loras=of("a")), bench.submit()]
    bench.run()
    assert bench.engine.made == jobs


@pytest.mark.parametrize("sets_kept", [1, 2])
def test_the_next_set_is_merged_while_one_is_used(bench, marks, sets_kept):
    """If the engine has room for it; else when it is its turn. Either way the job says how long merging took."""
    bench.engine.sets_kept = sets_kept
    first, second = bench.submit(loras=of("a")), bench.submit(loras=of("b"))
    merged = []

    def step(number):
        if bench.engine.making == first and number == STEPS:
            marks.wait("prepared")
            merged.extend(bench.engine.merges)

    bench.engine.at_merged_ahead = lambda: marks.reach("prepared")
    bench.engine.at_step = step
    bench.run()
    assert merged == [named("a"), named("b")][:sets_kept]
    assert bench.states(first, second) == [State.COMPLETED] * 2
    assert "merge" in bench.ledger.job(second).result.timings_s
