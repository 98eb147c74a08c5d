"""What a key has asked for before, as far as it is kept."""

import pytest

from darkroom.job import State
from darkroom.ledger.contract import Order, Search
from ledgers import CRASH, RESULT, START, ask, make_key, running


def found(ledger, key, *, limit=100, **wanted):
    """The ids."""
    return [job.id for job in ledger.history(Search(key_id=key.id, limit=limit, **wanted)).jobs]


def submit(ledger, key, *job_ids, **asked):
    for job_id in job_ids:
        ledger.accept(ask(key, job_id=job_id, **asked))


def test_a_key_finds_its_own_jobs_newest_first(ledger, key):
    """None of another key's."""
    other = make_key(ledger, "other")
    submit(ledger, key, "a", "b")
    submit(ledger, other, "x")
    submit(ledger, key, "c")
    assert found(ledger, key) == ["c", "b", "a"]
    assert found(ledger, other) == ["x"]


def test_the_jobs_are_those_that_are_found_one_by_one(ledger, key):
    """All that the ledger knows of each: how it ended, and what was asked."""
    done, lease = running(ledger, key)
    ledger.complete(lease, RESULT)
    lost, lease = running(ledger, key, loras=("0123",))
    ledger.fail(lease, CRASH)
    submit(ledger, key, "waiting")
    history = ledger.history(Search(key_id=key.id, limit=10))
    assert history.jobs == tuple(ledger.job(job_id) for job_id in ("waiting", lost.id, done.id))


def test_it_comes_in_pages(ledger, key):
    """Each job on one page, the total on all of them, also past the last."""
    submit(ledger, key, *"abcde")
    pages = [ledger.history(Search(key_id=key.id, limit=2, offset=offset)) for offset in (0, 2, 4, 6)]
    assert [[job.id for job in page.jobs] for page in pages] == [["e", "d"], ["c", "b"], ["a"], []]
    assert [page.total for page in pages] == [5, 5, 5, 5]


def test_a_job_past_its_time_is_not_found(make_ledger):
    """An hour after its end, whether it has been swept away or not; one that waits is found however old it is."""
    ledger, clock = make_ledger(retention_s=3600)
    key = make_key(ledger)
    job, lease = running(ledger, key)
    submit(ledger, key, "waiting")
    ledger.complete(lease, RESULT)
    clock.advance(3599)
    assert found(ledger, key) == ["waiting", job.id]
    clock.advance(1)
    assert found(ledger, key) == ["waiting"]
    assert ledger.history(Search(key_id=key.id, limit=1)).total == 1


def test_by_state(ledger, key):
    """Of one state or several."""
    done, lease = running(ledger, key)
    ledger.complete(lease, RESULT)
    made, _ = running(ledger, key)
    submit(ledger, key, "waiting")
    assert found(ledger, key, states=(State.COMPLETED,)) == [done.id]
    assert found(ledger, key, states=(State.QUEUED, State.PROCESSING)) == ["waiting", made.id]
    assert found(ledger, key, states=(State.FAILED,)) == []


def test_by_model(ledger, key):
    """None are named: none are found."""
    submit(ledger, key, "a")
    assert found(ledger, key, slugs=("qwen-image-edit-plus", "another")) == ["a"]
    assert found(ledger, key, slugs=("qwen-image-edit",)) == []
    assert found(ledger, key, slugs=()) == []


def test_by_time(ledger, clock, key):
    """From a time on, and up to another."""
    for job_id in "abc":
        submit(ledger, key, job_id)
        clock.advance(10)
    assert found(ledger, key, since=START + 10) == ["c", "b"]
    assert found(ledger, key, until=START + 10) == ["a"]
    assert found(ledger, key, since=START + 5, until=START + 20) == ["b"]


@pytest.mark.parametrize(
    ("order", "wanted"), [(Order.ACCEPTED, "cba"), (Order.SLUG, "cba"), (Order.CHARGE, "bca")], ids=str
)
def test_in_an_order(ledger, key, order, wanted):
    """Dearest first, where that is what it goes by; newest first among equals; and all of it the other way round."""
    submit(ledger, key, "a", price_micro=1)
    submit(ledger, key, "b", price_micro=9)
    submit(ledger, key, "c", price_micro=1)
    assert found(ledger, key, order=order) == [*wanted]
    assert found(ledger, key, order=order, ascending=True) == [*reversed(wanted)]
    assert found(ledger, key, order=order, ascending=True, limit=1) == [wanted[-1]]


def test_what_failed_has_cost_nothing(ledger, key):
    """Its price was given back, so it is the cheapest."""
    submit(ledger, key, "cheap", price_micro=1)
    submit(ledger, key, "dear", price_micro=9)
    ledger.cancel("dear")
    assert found(ledger, key, order=Order.CHARGE) == ["cheap", "dear"]
