"""A side of the comparison in a process of its own: `python -m benchmarks.elsewhere SIDE CHECKPOINT DTYPE`.

What the C libraries are told belongs to a side, and is read as they are loaded. A line of JSON asks for an edit, a line
answers with its stages' seconds.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.request import Stages, make_request
from darkroom.worker.environment import ENVIRONMENT

OURS, REFERENCE, COMPILED, ALIKE = "ours", "reference", "compiled", "reference, in our environment"
"""ALIKE: the reference, told of threads and memory what our workers are."""


class Elsewhere:
    """without: a variable that the side is not told. Raises `RuntimeError` if the side can't be had: the reference does
    not compile everywhere."""

    def __init__(self, side: str, checkpoint: Path, dtype: str, *, without: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.elsewhere", side, str(checkpoint.resolve()), dtype],
            cwd=Path(__file__).parent.parent,
            env=environment(side, without),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.compiling_s: float = self._read()["compiling_s"]
        except RuntimeError:
            self.close()
            raise

    def edit(
        self, number: int, *, pictures: int, steps: int, side_px: int | None = None, guided: bool = True
    ) -> Stages:
        """Of the request of that number. side_px: of a square result; None: the checkpoint's own."""
        asked = {"number": number, "pictures": pictures, "steps": steps, "side_px": side_px, "guided": guided}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended: exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer


def begin_as_ours(module: str) -> None:
    """Starts the program `module`, this one, anew with what our workers are told, unless it was started so."""
    if not os.environ.items() >= ENVIRONMENT.items():
        arguments = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, arguments, environment(OURS))  # noqa: S606  the same program


def environment(side: str, without: str | None = None) -> dict[str, str]:
    """without: a variable that the side is not told."""
    told = ENVIRONMENT if side in (OURS, ALIKE) else {}
    chosen = {*ENVIRONMENT, "OMP_WAIT_POLICY"}
    bare = {name: value for name, value in os.environ.items() if name not in chosen} | {"PYTHONPATH": "tests"}
    return bare | {name: value for name, value in told.items() if name != without}


def main() -> None:
    side, folder, dtype = sys.argv[1:]
    # First, that OpenMP may start as the environment says: our engine would have its own way with it.
    import torch  # noqa: F401, PLC0415

    from benchmarks.sides import Ours, Theirs  # noqa: PLC0415

    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(value: Mapping[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    made = Ours(Path(folder), dtype) if side == OURS else Theirs(Path(folder), dtype)
    started = time.perf_counter()
    if side == COMPILED:
        try:
            made.compile()
        except RuntimeError as error:
            answer({"failed": str(error).strip().splitlines()[0]})
            return
    answer({"compiling_s": round(time.perf_counter() - started, 1)})
    for line in sys.stdin:
        asked = json.loads(line)
        side_px = asked.pop("side_px")
        sizes = made.sizes if side_px is None else replace(made.sizes, output_area_px=side_px**2)
        answer(made.edit(make_request(**asked), sizes))


if __name__ == "__main__":
    main()
