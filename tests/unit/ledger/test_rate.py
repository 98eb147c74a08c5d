"""The rate's arithmetic where the contract's tests don't reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import RateLimited
from darkroom.ledger import rate
from ledgers import START


@given(limit=st.integers(1, 100_000), now=st.floats(START, 2 * START))
def test_a_full_limit_is_exactly_the_limit(limit, now):
    """However fine the share of one request is against the clock's own steps, the full limit fits and no more."""
    arrival_at = now + 60 - 60 / limit
    assert rate.quota(limit=limit, arrival_at=arrival_at, now=now).remaining == 1
    arrival_at = rate.take(limit=limit, arrival_at=arrival_at, now=now)
    assert rate.quota(limit=limit, arrival_at=arrival_at, now=now).remaining == 0
    with pytest.raises(RateLimited):
        rate.take(limit=limit, arrival_at=arrival_at, now=now)


@given(limit=st.integers(1, 100_000), now=st.floats(START, 2 * START), early=st.floats(0.01, 0.99))
def test_waiting_as_told_is_enough(limit, now, early):
    """The time to wait that a refusal names is the time after which the next request is taken."""
    arrival_at = now + 60 - early * 60 / limit
    with pytest.raises(RateLimited) as refused:
        rate.take(limit=limit, arrival_at=arrival_at, now=now)
    rate.take(limit=limit, arrival_at=arrival_at, now=now + refused.value.retry_after_s)
