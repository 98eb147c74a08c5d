"""The rate of a key, held against a model in exact arithmetic."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darkroom.errors import RateLimited
from ledgers import START, ask, make_key


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 200), waits=st.lists(st.integers(0, 12), max_size=60))
def test_a_key_spends_its_requests_as_the_model_does(make_ledger, limit, waits):
    """A full bucket of `limit` requests that refills evenly over a minute allows the same requests, with the same
    counters; `waits` are quarters of one request's share."""
    ledger, clock = make_ledger()
    key = make_key(ledger, rate_per_minute=limit)
    share_s = Fraction(60, limit)
    passed_s = Fraction(0)
    left = Fraction(limit)
    for wait in waits:
        passed_s += wait * share_s / 4
        clock.now = float(Fraction(START) + passed_s)
        left = min(Fraction(limit), left + Fraction(wait, 4))
        if left < 1:
            with pytest.raises(RateLimited) as refused:
                ledger.accept(ask(key, price_micro=0))
            assert refused.value.retry_after_s == pytest.approx(float((1 - left) * share_s), abs=1e-4)
            continue
        left -= 1
        quota = ledger.accept(ask(key, price_micro=0)).quota
        assert (quota.limit, quota.remaining) == (limit, int(left))
        assert quota.reset_at == pytest.approx(clock.now + float((limit - left) * share_s), abs=1e-4)


def test_a_minute_never_sees_more_than_twice_the_limit(make_ledger):
    """Hammering gets through the burst and one refill in the first minute, and the limit in every later one."""
    ledger, clock = make_ledger()
    key = make_key(ledger, rate_per_minute=6)
    taken = []
    for minute in range(3):
        taken.append(0)
        for second in range(60):
            clock.now = START + 60 * minute + second
            try:
                ledger.accept(ask(key, price_micro=0))
            except RateLimited:
                continue
            taken[minute] += 1
    assert taken == [11, 6, 6]
