"""What each thing that our workers tell the C libraries gives alone: an edit's denoise stage without it, and with it.

With a neighbour, another process keeps one core busy.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablations import row
from benchmarks.elsewhere import OURS, Elsewhere
from benchmarks.request import WARM_UP_STEPS
from benchmarks.timing import in_turns
from darkroom.engine.device import Precision

IDLE, BUSY = "idle machine", "one core busy"
STAGE = "denoise"
ABOUT = {"GOMP_SPINCOUNT": "threads that wait spin briefly", "GLIBC_TUNABLES": "freed memory is kept, in large pages"}


def measure(
    checkpoint: Path, *, dtype: Precision, steps: int, rounds: int, machines: Sequence[str]
) -> list[dict[str, Any]]:
    """machines: `IDLE`, `BUSY`: a row each for every variable."""
    rows = []
    for variable, about in ABOUT.items() if machines else ():
        with ExitStack() as stack:
            sides = {
                name: stack.enter_context(closing(Elsewhere(OURS, checkpoint, dtype, without=without)))
                for name, without in (("with", None), ("without", variable))
            }
            for machine in machines:
                with _neighbour(busy=machine == BUSY):
                    rows.append(_row(f"{about} ({machine})", sides, steps=steps, rounds=rounds))
    return rows


def _row(name: str, sides: dict[str, Elsewhere], *, steps: int, rounds: int) -> dict[str, Any]:
    def taken(side: Elsewhere, number: int) -> float:
        return side.edit(number, pictures=1, steps=steps if number else WARM_UP_STEPS)[STAGE]

    found = in_turns({each: partial(taken, side) for each, side in sides.items()}, rounds=rounds, about=name)
    return row(name, STAGE, found)


@contextmanager
def _neighbour(*, busy: bool) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()
