"""The ledgers under the contract. Another database joins as one more entry of `MAKERS`."""

import itertools

import pytest

from darkroom.ledger.sqlite import SqliteLedger
from ledgers import SettableClock, make_key


def sqlite(folder, *, lease_s, retention_s):
    clock = SettableClock()
    return SqliteLedger(folder / "ledger.db", lease_s=lease_s, retention_s=retention_s, clock=clock), clock


MAKERS = {"sqlite": sqlite}


@pytest.fixture(params=MAKERS)
def make_ledger(request, tmp_path):
    """Makes an empty ledger and the clock it goes by: `clock.now` can be set, `clock.advance(seconds)` moves it."""
    made = []
    numbers = itertools.count()

    def make(*, lease_s=30.0, retention_s=3600.0):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        ledger, clock = MAKERS[request.param](folder, lease_s=lease_s, retention_s=retention_s)
        made.append(ledger)
        return ledger, clock

    yield make
    for ledger in made:
        ledger.close()


@pytest.fixture
def ledger_and_clock(make_ledger):
    return make_ledger()


@pytest.fixture
def ledger(ledger_and_clock):
    return ledger_and_clock[0]


@pytest.fixture
def clock(ledger_and_clock):
    return ledger_and_clock[1]


@pytest.fixture
def key(ledger):
    return make_key(ledger)
