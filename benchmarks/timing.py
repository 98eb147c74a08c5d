"""Times of several things on one machine, taken so that they can be compared."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of several measurements, in seconds, or of a ratio."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(values), least=min(values), most=max(values), count=len(values))

    def row(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in asdict(self).items()}


def in_turns(
    calls: Mapping[str, Callable[[int], T]], *, rounds: int, about: str, budget_s: float = 0
) -> dict[str, list[T]]:
    """What each returned in each round: a round calls all of them, so that a slow spell of the machine meets all alike.

    Each is told a number that no earlier round was told, so that it can take other input. A first round warms up and is
    left out; then come `rounds`, and more while all together take no longer than `budget_s` seconds.
    """
    found: dict[str, list[T]] = {name: [] for name in calls}
    started, number = time.perf_counter(), 0
    while number <= rounds or (time.perf_counter() - started) * (number + 1) / number < budget_s:
        for name, call in calls.items():
            value = call(number)
            if number:
                found[name].append(value)
        print(f"\r{about}: round {number} ", end="", file=sys.stderr, flush=True)
        number += 1
    print(file=sys.stderr)
    return found


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
