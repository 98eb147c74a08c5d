"""Who goes next, as plain code: by its rules, and over a day's load in discrete events."""

import heapq
import random
from bisect import insort
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import accumulate, count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.ledger.scheduler import AFFINITY, WINDOW, Affinity, Waiting, choose

IN_ORDER = Affinity(slack=0, most_overtaken=0)
SETS = st.sampled_from(["", "a", "b", "c", None])


def waiting_at(gaps, works, sets, overtaken):
    tags = accumulate(gaps)
    return [
        Waiting(id=str(place), fair_tag=tag, work=work, lora_set=lora_set, overtaken=times)
        for place, (tag, work, lora_set, times) in enumerate(zip(tags, works, sets, overtaken, strict=True))
    ]


def lists(values, size):
    return st.lists(values, min_size=size, max_size=size)


@st.composite
def queues(draw):
    size = draw(st.integers(1, 12))
    return waiting_at(
        draw(lists(st.sampled_from([0, 1, 4, 16]), size)),
        draw(lists(st.sampled_from([1, 4, 16]), size)),
        draw(lists(SETS, size)),
        draw(lists(st.integers(0, 4), size)),
    )


@given(
    waiting=queues(),
    held=st.sets(SETS.filter(lambda each: each is not None)),
    slack=st.sampled_from([0, 1, 5, 1000]),
    most=st.integers(0, 4),
)
def test_whoever_goes_before_the_first_may(waiting, held, slack, most):
    """Its set is held, it stands within the slack, all whom it passes may be passed, and none of them was as good."""
    place = choose(waiting, held, Affinity(slack=slack, most_overtaken=most))
    first, passed, chosen = waiting[0], waiting[:place], waiting[place]
    if not place:
        return
    assert chosen.lora_set
    assert chosen.lora_set in held
    assert chosen.fair_tag <= first.fair_tag + slack * first.work
    assert first.lora_set not in held
    assert all(job.overtaken < most and job.lora_set not in held - {""} for job in passed)


@given(waiting=queues(), held=st.sets(st.sampled_from(["", "a", "b", "c"])))
def test_whoever_may_go_before_the_first_does(waiting, held):
    """Without bounds, the first whose set is held goes; if there is none, the first of all. One without LoRAs waits for
    its turn."""
    suited = [place for place, job in enumerate(waiting) if job.lora_set in held and (job.lora_set or place == 0)]
    assert choose(waiting, held, Affinity(slack=10**6, most_overtaken=10**6)) == (suited or [0])[0]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Keys with their jobs over `span_s`; each job has one of `sets` sets by Zipf's law and takes `job_s`, `merge_s`
    more where the worker has another set merged."""

    jobs: tuple[tuple[str, int], ...] = (("heavy", 1000), ("heavy too", 300), ("steady", 100), ("light", 40))
    span_s: float = 600
    sets: int = 60
    workers: int = 8
    job_s: float = 8
    merge_s: float = 0.5

    def arrivals(self, seed):
        """Time, key and set of each job, in the order they come."""
        drawn = random.Random(seed)
        weights = [1 / rank for rank in range(1, self.sets + 1)]
        return sorted(
            (drawn.uniform(0, self.span_s), key, str(drawn.choices(range(self.sets), weights)[0]))
            for key, jobs in self.jobs
            for _ in range(jobs)
        )


class Simulation:
    """A ledger's queue and its workers, each of which has the last job's set merged.

    waits_s: by key. overtaken: of each job, by how many that stood behind it.
    """

    def __init__(self, load, affinity, *, fair=True, seed=0):
        self.waits_s = defaultdict(list)
        self.overtaken = []
        self.switches = 0
        self._load, self._affinity, self._fair = load, affinity, fair
        self._arrivals = load.arrivals(seed)
        self._queue = []
        self._virtual_time = 0.0
        self._finish_tags = defaultdict(float)
        self._run()

    def p95_s(self, key):
        return sorted(self.waits_s[key])[int(0.95 * len(self.waits_s[key]))]

    def _run(self):
        tie = count()
        coming = [(at, next(tie), number, None) for number, (at, _, _) in enumerate(self._arrivals)]
        idle, merged = list(range(self._load.workers)), [""] * self._load.workers
        while coming:
            now, _, number, worker = heapq.heappop(coming)
            if worker is None:
                self._submit(number)
            else:
                idle.append(worker)
            while idle and self._queue:
                worker = idle.pop(0)
                at, key, lora_set = self._claim({merged[worker]})
                self.waits_s[key].append(now - at)
                switched = lora_set != merged[worker]
                self.switches += switched
                merged[worker] = lora_set
                done_at = now + self._load.job_s + switched * self._load.merge_s
                heapq.heappush(coming, (done_at, next(tie), number, worker))

    def _submit(self, number):
        _, key, lora_set = self._arrivals[number]
        tag = max(self._virtual_time, self._finish_tags[key]) if self._fair else 0.0
        self._finish_tags[key] = tag + 1
        job = Waiting(id=str(number), fair_tag=tag, work=1, lora_set=lora_set, overtaken=0)
        insort(self._queue, (tag, number, job))

    def _claim(self, held):
        waiting = [job for _, _, job in self._queue[:WINDOW]]
        place = choose(waiting, held, self._affinity)
        for passed, (tag, number, job) in enumerate(self._queue[:place]):
            self._queue[passed] = (tag, number, replace(job, overtaken=job.overtaken + 1))
        self._virtual_time = max(self._virtual_time, waiting[0].fair_tag)
        _, number, job = self._queue.pop(place)
        self.overtaken.append(job.overtaken)
        return self._arrivals[number]


@pytest.fixture(scope="module")
def simulated():
    """The same load three ways: as jobs come, fair between keys, and fair with affinity."""
    load = Load()
    return (
        Simulation(load, IN_ORDER, fair=False),
        Simulation(load, IN_ORDER),
        Simulation(load, AFFINITY),
    )


def test_all_that_came_was_done(simulated):
    """Else a shorter wait would be a job forgotten."""
    for each in simulated:
        assert {key: len(waits) for key, waits in each.waits_s.items()} == dict(Load().jobs)


def test_a_light_key_waits_a_small_part_of_what_it_would(simulated):
    """Behind heavy ones its p95 is a twentieth of that in order of arrival; affinity costs it two jobs' time."""
    arrival, fair, affine = simulated
    assert affine.p95_s("light") < arrival.p95_s("light") / 20
    assert affine.p95_s("light") < fair.p95_s("light") + 2 * Load().job_s


def test_sets_are_switched_far_less(simulated):
    """By a quarter less than in order of arrival, with one set merged a worker; and so the heavy key is done sooner."""
    arrival, fair, affine = simulated
    assert affine.switches < min(arrival.switches, fair.switches) * 0.76
    assert affine.p95_s("heavy") < fair.p95_s("heavy")


def test_nobody_starves(simulated):
    """Some are overtaken, none oftener than the bound, and the longest wait is hardly longer than without."""
    _, fair, affine = simulated
    assert 0 < max(affine.overtaken) <= AFFINITY.most_overtaken
    longest = [max(max(waits) for waits in each.waits_s.values()) for each in (fair, affine)]
    assert longest[1] < longest[0] + 2 * Load().job_s


@pytest.mark.parametrize("most", [0, 3, 12])
def test_the_bound_holds_where_it_bites(most):
    """With all the slack there is and many keys, each job is overtaken as often as it may be and never more."""
    load = Load(jobs=tuple((f"key {number}", 20) for number in range(30)), span_s=60, sets=6)
    overtaken = Simulation(load, Affinity(slack=10**6, most_overtaken=most)).overtaken
    assert max(overtaken) == most


def test_more_slack_switches_less():
    """Each doubling of it, under the same load."""
    slacks = (0, 2.5, 5, 10, 20)
    switches = [Simulation(Load(), Affinity(slack=slack, most_overtaken=WINDOW)).switches for slack in slacks]
    assert all(more < less for less, more in pairwise(switches))
