"""Leases are kept, lost and let go, each by itself."""

import threading

import pytest

from darkroom.ledger.sqlite import SqliteLedger
from darkroom.worker.heart import Heart
from ledgers import CRASH, SettableClock, ask, make_key
from workbench import PATIENCE_S

LEASE_S = 30


class Pulse:
    """A ledger whose heartbeats can be waited for; the first `failing` of them raise."""

    def __init__(self, ledger):
        self._ledger = ledger
        self._beats = 0
        self._beat = threading.Condition()
        self.failing = 0

    def heartbeat(self, worker, leases):
        with self._beat:
            self._beats += 1
            self._beat.notify_all()
        if self._beats <= self.failing:
            raise OSError("no disk for now")
        return self._ledger.heartbeat(worker, leases)

    def wait(self):
        """Until a beat that begins after this call has ended: until two have begun."""
        with self._beat:
            until = self._beats + 2
            assert self._beat.wait_for(lambda: self._beats >= until, PATIENCE_S)


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def ledger(tmp_path, clock):
    ledger = SqliteLedger(tmp_path / "ledger.db", lease_s=LEASE_S, retention_s=60, clock=clock)
    yield ledger
    ledger.close()


@pytest.fixture
def leases(ledger):
    """Of two jobs, claimed by "w"."""
    key = make_key(ledger)
    for _ in range(2):
        ledger.accept(ask(key))
    return [ledger.claim("w")[1] for _ in range(2)]


@pytest.fixture
def pulse(ledger):
    return Pulse(ledger)


@pytest.fixture
def heart(pulse):
    heart = Heart(worker="w", ledger=pulse, beat_s=0.005)
    with heart.beating():
        yield heart


def test_all_leases_held_are_kept(heart, pulse, ledger, leases, clock):
    """None of them runs out, however long they are held; one that was let go does."""
    for lease in leases:
        heart.hold(lease)
    for _ in range(3):
        clock.advance(LEASE_S - 1)
        pulse.wait()
    assert ledger.reap(ledger.overdue()) == []
    heart.let_go(leases[0])
    pulse.wait()
    clock.advance(LEASE_S - 1)
    pulse.wait()
    clock.advance(2)
    assert [job.id for job in ledger.reap(ledger.overdue())] == [leases[0].job_id]


def test_one_lost_lease_is_known_by_itself(heart, pulse, ledger, leases):
    """The job that another took is held no more; the one beside it is."""
    for lease in leases:
        heart.hold(lease)
    ledger.retry(leases[0], CRASH)
    pulse.wait()
    assert [heart.holds(lease) for lease in leases] == [False, True]


def test_a_beat_that_fails_is_not_the_last(heart, pulse, ledger, leases):
    """A ledger that can't be reached for a moment costs no lease: the heart beats on."""
    pulse.failing = 2
    for lease in leases:
        heart.hold(lease)
    ledger.retry(leases[0], CRASH)
    for _ in range(2):
        pulse.wait()
    assert [heart.holds(lease) for lease in leases] == [False, True]
