"""Who goes before their turn: jobs whose LoRAs the worker has merged, within bounds."""

import itertools

import pytest

from darkroom.ledger.scheduler import AFFINITY, WINDOW
from ledgers import CRASH, RESULT, ask, make_key, set_of, snapshot

A, B = set_of("a"), set_of("b")


def submit(ledger, key, *jobs):
    """jobs: ids, each of which begins with its LoRA's digest."""
    for job_id in jobs:
        ledger.accept(ask(key, job_id=job_id, loras=[job_id[0]]))


def take(ledger, *held):
    job, lease = ledger.claim("w", held)
    ledger.complete(lease, RESULT)
    return job.id


def test_a_worker_goes_on_with_what_it_has_merged(ledger, key):
    """Of those close behind, the first of its set goes before the first of all, and the rest in their order."""
    submit(ledger, key, "a0", "b0", "a1", "b1", "a2")
    assert [take(ledger, B), take(ledger, B), take(ledger, A), take(ledger, B)] == ["b0", "b1", "a0", "a1"]


def test_without_a_merged_set_jobs_go_in_order(ledger, key):
    """Nor do they otherwise for sets that nobody waits with."""
    submit(ledger, key, "a0", "b0", "a1", "b1")
    assert [take(ledger), take(ledger, set_of("c")), take(ledger), take(ledger)] == ["a0", "b0", "a1", "b1"]


def test_the_set_is_the_same_in_any_order(ledger, key):
    """It is the files and their strengths that count, not which parameter named which."""
    submit(ledger, key, "a0")
    ledger.accept(ask(key, job_id="both", loras=["y", "x"]))
    assert take(ledger, set_of("x", "y")) == "both"


def test_a_job_far_behind_waits_for_its_turn(ledger, key):
    """Beyond the slack, in lengths of the first one, no set helps."""
    submit(ledger, key, *(f"a{number}" for number in range(int(AFFINITY.slack) + 1)), "b0")
    assert take(ledger, B) == "a0"
    assert take(ledger, B) == "b0"


def test_what_can_t_be_begun_yet_is_passed_over(ledger, key):
    """Others go before it, as many as there are, which is not counted; and it keeps its place."""
    submit(ledger, key, *(f"a{number}" for number in range(AFFINITY.most_overtaken + 2)), "b0")
    for number in range(1, AFFINITY.most_overtaken + 2):
        assert ledger.upcoming((), {"a0"}).id == f"a{number}"
        job, lease = ledger.claim("w", (), {"a0"})
        ledger.complete(lease, RESULT)
        assert job.id == f"a{number}"
    assert ledger.claim("w", (), {"a0", "b0"}) is ledger.upcoming((), {"a0", "b0"}) is None
    assert [take(ledger), take(ledger)] == ["a0", "b0"]


def test_another_key_waits_no_longer_than_the_slack(ledger, key):
    """However many jobs a key has of the merged set, another's first is taken within as many as the slack has."""
    other = make_key(ledger, "other")
    submit(ledger, key, *(f"a{number}" for number in range(50)))
    submit(ledger, other, "b0")
    assert "b0" in [take(ledger, A) for _ in range(int(AFFINITY.slack) + 2)]


def test_one_who_comes_in_is_not_put_behind_the_slack(ledger, key):
    """A key's first job stands by the first of those that wait, also while jobs behind it are taken before it."""
    submit(ledger, key, "a0", *(f"b{number}" for number in range(20)))
    for _ in range(5):
        assert take(ledger, B).startswith("b")
    submit(ledger, make_key(ledger, "new"), "c0")
    assert [take(ledger), take(ledger)] == ["a0", "c0"]


def test_nobody_is_overtaken_without_end(ledger, key):
    """A stream of new keys, each in time to go first, passes a job as often as may be and no more; so it is with one
    that was put back in between."""
    submit(ledger, key, "a0")
    taken = []
    for number in itertools.count():
        submit(ledger, make_key(ledger, f"key {number}"), f"b{number}")
        job, lease = ledger.claim("w", [B])
        taken.append(job.id)
        if number == 10:
            ledger.retry(lease, CRASH)
        if job.id == "a0":
            break
    assert len(taken) == AFFINITY.most_overtaken + 1


def test_the_upcoming_job_is_the_one_claimed_with_the_same_sets(ledger, key):
    """Looked at with what the worker holds, without counting as overtaking."""
    submit(ledger, key, "a0", "b0", "a1", "b1")
    before = snapshot(ledger, "a0", "b0")
    for _ in range(AFFINITY.most_overtaken + 1):
        assert ledger.upcoming([B]).id == "b0"
    assert snapshot(ledger, "a0", "b0") == before
    assert ledger.upcoming([A]).id == ledger.upcoming().id == "a0"
    for held in ([B], [A], [B], [B]):
        assert ledger.upcoming(held).id == ledger.claim("w", held)[0].id


@pytest.mark.parametrize("held", [[], [B]])
def test_a_window_of_the_queue_is_enough(ledger, held):
    """Every job of many keys is claimed once, in whichever order."""
    keys = [make_key(ledger, f"key {number}") for number in range(WINDOW + 20)]
    for number, key in enumerate(keys):
        submit(ledger, key, f"{'ab'[number % 2]}{number}")
    taken = [take(ledger, *held) for _ in keys]
    assert len(set(taken)) == len(keys)
    assert ledger.claim("w", held) is None
