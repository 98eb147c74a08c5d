"""What an edit costs as its result, its steps and its pictures grow, each alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from benchmarks.comparison import Comparison
from benchmarks.sides import Theirs
from darkroom.engine.engine import Engine
from darkroom.engine.vae import TOKEN_PX

Row = Mapping[str, Any]


def measure(
    both: Comparison, compared: Sequence[Row], *, sides_px: Sequence[int], steps: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Points by axis: what is on it, and the seconds of each side.

    compared: rows of the comparison, which are the points for pictures. sides_px: of square results, made in the second
    of `steps`.
    """

    def one(taken: int) -> Row:
        return both.row(pictures=1, steps=taken, rounds=rounds, budget_s=0)

    def sized(side_px: int) -> Row:
        with _resized(both.engine, side_px), _resized(both.reference, side_px):
            return one(steps[1])

    return {
        "dtype": both.dtype,
        "axes": {
            f"tokens of the result, {steps[1]} steps": [_point((px // TOKEN_PX) ** 2, sized(px)) for px in sides_px],
            "steps, one picture": [_point(taken, one(taken)) for taken in steps],
            f"pictures, {compared[0]['steps']} steps": [_point(row["pictures"], row) for row in compared],
        },
    }


def _point(at: int, row: Row) -> dict[str, Any]:
    return {"at": at, **{name: row["seconds"][name]["total"]["median"] for name in ("ours", "reference")}}


def _resized(side: Engine | Theirs, side_px: int) -> Any:
    name = "_sizes" if isinstance(side, Engine) else "sizes"
    return patch.object(side, name, replace(getattr(side, name), output_area_px=side_px**2))
