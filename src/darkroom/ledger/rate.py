"""How many requests a minute a key may make: the generic cell rate algorithm.

Each request takes its share of a minute. The theoretical arrival time is when all that was taken is paid back; a key
may run it up to one minute ahead, so the full limit can come at once.
"""

import math

from darkroom.errors import RateLimited
from darkroom.ledger.contract import Quota

WINDOW_S = 60.0
_ROUNDING = 1e-3
"""In requests. Times since the epoch have steps of 2e-7 s: a request due right now must not miss by one."""


def take(*, limit: int, arrival_at: float, now: float) -> float:
    """The theoretical arrival time after one more request. Raises `RateLimited`."""
    interval_s = WINDOW_S / limit
    taken_s = _ahead_s(arrival_at, now) + interval_s
    excess_s = taken_s - WINDOW_S
    if excess_s > _ROUNDING * interval_s:
        raise RateLimited(limit=limit, retry_after_s=excess_s, reset_after_s=taken_s - interval_s)
    return now + taken_s


def quota(*, limit: int, arrival_at: float, now: float) -> Quota:
    ahead_s = _ahead_s(arrival_at, now)
    remaining = max(0, math.floor((WINDOW_S - ahead_s) * limit / WINDOW_S + _ROUNDING))
    return Quota(limit=limit, remaining=remaining, reset_at=now + ahead_s)


def _ahead_s(arrival_at: float, now: float) -> float:
    """How far ahead of now the key is. More than the window can only come of a clock that was set back: it begins anew,
    for else it would stay locked out until the old time is reached."""
    ahead_s = max(arrival_at - now, 0.0)
    return ahead_s if ahead_s < WINDOW_S + 1 else 0.0
