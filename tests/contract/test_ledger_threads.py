"""Many threads at one ledger."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from darkroom.errors import InsufficientCredits, LeaseLost
from darkroom.job import State
from ledgers import RESULT, ask, key_named, make_key

THREADS = 8


def together(work):
    """Run `work(number)` in all threads at once; what each returned."""
    start = threading.Barrier(THREADS)

    def run(number):
        start.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_every_job_is_claimed_once(make_ledger):
    """Threads that submit and claim at the same time lose no job and share none."""
    ledger, _ = make_ledger()
    key = make_key(ledger)

    def work(number):
        claimed = []
        for _ in range(25):
            ledger.accept(ask(key, price_micro=10))
            job, lease = ledger.claim(f"w{number}")
            ledger.complete(lease, RESULT)
            claimed.append(job.id)
        return claimed

    claimed = [job_id for ids in together(work) for job_id in ids]
    assert len(claimed) == len(set(claimed)) == THREADS * 25
    assert ledger.counts()[State.COMPLETED] == THREADS * 25
    assert key_named(ledger, "studio").spent_micro == THREADS * 25 * 10


def test_credits_for_one_buy_one(make_ledger):
    """Of several submits that the balance covers once, one is accepted."""
    ledger, _ = make_ledger()
    key = make_key(ledger, granted_micro=1000)

    def work(_):
        try:
            ledger.accept(ask(key, price_micro=1000))
        except InsufficientCredits:
            return 0
        return 1

    assert sum(together(work)) == 1


def test_one_idempotency_name_makes_one_job(make_ledger):
    """The same request sent several times at once is one job, charged once."""
    ledger, _ = make_ledger()
    key = make_key(ledger)
    answers = together(lambda _: ledger.accept(ask(key, price_micro=1000, idempotency=("order 1", "d"))))
    assert len({answer.job.id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert key_named(ledger, "studio").held_micro == 1000


@pytest.mark.parametrize("winner_fails", [False, True])
def test_a_job_ends_once_whoever_is_first(make_ledger, winner_fails):
    """Of several who end the same job under the same lease, one does; the others' leases are lost."""
    ledger, _ = make_ledger()
    key = make_key(ledger)
    ledger.accept(ask(key, job_id="j", price_micro=1000))
    _, lease = ledger.claim("w1")

    def work(number):
        try:
            if winner_fails:
                ledger.give_back(lease)
            else:
                ledger.complete(lease, RESULT)
        except LeaseLost:
            return 0
        return 1

    assert sum(together(work)) == 1
    assert ledger.job("j").state is (State.QUEUED if winner_fails else State.COMPLETED)
