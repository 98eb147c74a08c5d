"""Ours against the reference pipeline: the same edits, on the same checkpoint, in turns."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.elsewhere import COMPILED, OURS, REFERENCE, Elsewhere
from benchmarks.request import WARM_UP_STEPS, Stages
from benchmarks.timing import Spread, in_turns
from darkroom.engine.device import Precision


class Comparison:
    """The sides in one dtype, to be closed. sides: those beside ours and the plain reference; one that does not compile
    is left out."""

    def __init__(self, checkpoint: Path, dtype: Precision, sides: Sequence[str] = ()) -> None:
        self.dtype = dtype
        self.compiling: dict[str, Any] = {"dtype": dtype}
        self._sides: dict[str, Elsewhere] = {}
        for side in (OURS, REFERENCE, *sides):
            try:
                self._sides[side] = Elsewhere(side, checkpoint, dtype)
            except RuntimeError as error:
                if side != COMPILED:
                    raise
                self.compiling["failed"] = str(error)
        if COMPILED in self._sides:
            self.compiling["seconds"] = self._sides[COMPILED].compiling_s

    def row(
        self, *, pictures: int, steps: int, rounds: int, sides: Sequence[str] = (), side_px: int | None = None
    ) -> dict[str, Any]:
        """sides: of those given, beside ours and the plain reference."""

        def call(side: Elsewhere, number: int) -> Stages:
            taken = steps if number else WARM_UP_STEPS
            return side.edit(number, pictures=pictures, steps=taken, side_px=side_px)

        chosen = [name for name in self._sides if name in (OURS, REFERENCE, *sides)]
        found = in_turns(
            {name: partial(call, self._sides[name]) for name in chosen},
            rounds=rounds,
            about=f"{self.dtype}, {pictures} picture(s), {steps} steps, {' · '.join(chosen)}",
        )
        return {
            "dtype": self.dtype,
            "pictures": pictures,
            "steps": steps,
            "ratios": {name: _ratios(found[name], found[OURS]) for name in chosen if name != OURS},
            "seconds": {name: _seconds(stages) for name, stages in found.items()},
        }

    def close(self) -> None:
        for side in self._sides.values():
            side.close()


def _ratios(theirs: list[Stages], ours: list[Stages]) -> dict[str, Any]:
    """By stage, of theirs over ours in the same round."""
    return {
        stage: Spread.of([one[stage] / other[stage] for one, other in zip(theirs, ours, strict=True)]).row()
        for stage in ours[0]
    }


def _seconds(stages: list[Stages]) -> dict[str, Any]:
    return {stage: Spread.of([each[stage] for each in stages]).row() for stage in stages[0]}
