"""How OpenMP's threads wait for one another: passive, as the engine has it, against active, which spins.

The choice is read when torch is loaded, so each is a process of its own: `python -m benchmarks.waiting CHECKPOINT DTYPE
STEPS ROUNDS` prints the seconds of one edit's denoise stages. With a neighbour, another process keeps one core busy.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import Spread, seconds

POLICIES = ("passive", "active")
IDLE, BUSY = "idle machine", "one core busy"


def measure(checkpoint: Path, *, dtype: str, steps: int, rounds: int, machines: Sequence[str]) -> list[dict[str, Any]]:
    """machines: `IDLE`, `BUSY`: a row each."""
    return [_row(name, checkpoint, dtype, steps, rounds) for name in machines]


def _row(name: str, checkpoint: Path, dtype: str, steps: int, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for policy in POLICIES:
        with _neighbour(busy=name == BUSY):
            times[policy] += _elsewhere(policy, checkpoint, dtype, steps, rounds)
    spread = {policy: Spread.of(taken) for policy, taken in times.items()}
    return {
        "name": f"threads wait passively ({name})",
        "stage": "denoise",
        "given": True,
        "ratio": Spread.of([a / p for a, p in zip(times["active"], times["passive"], strict=True)]).row(),
        "with_s": spread["passive"].row(),
        "without_s": spread["active"].row(),
    }


def _elsewhere(policy: str, checkpoint: Path, dtype: str, steps: int, rounds: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.waiting", str(checkpoint.resolve()), dtype, str(steps), str(rounds)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    times: list[float] = json.loads(done.stdout)
    return times


@contextmanager
def _neighbour(*, busy: bool) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def main() -> None:
    from benchmarks.work import Work  # noqa: PLC0415  loads torch
    from darkroom.engine.engine import Engine  # noqa: PLC0415  so does it

    checkpoint, dtype, steps, rounds = sys.argv[1:]
    work = Work(Engine.load(Path(checkpoint), device="cpu", dtype=dtype), steps=int(steps))
    work.denoise()
    print(json.dumps([seconds(work.denoise) for _ in range(int(rounds))]))


if __name__ == "__main__":
    main()
