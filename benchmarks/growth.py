"""What an edit costs as its result, its steps and its pictures grow, each alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparison import Comparison
from benchmarks.elsewhere import OURS, REFERENCE
from darkroom.engine.vae import TOKEN_PX

Row = Mapping[str, Any]


def measure(
    both: Comparison, compared: Sequence[Row], *, sides_px: Sequence[int], steps: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Points by axis: what is on it, and the seconds of each side.

    compared: rows of the comparison, which are the points for pictures. sides_px: of square results, made in the second
    of `steps`.
    """

    def one(taken: int, side_px: int | None = None) -> Row:
        return both.row(pictures=1, steps=taken, rounds=rounds, side_px=side_px)

    return {
        "dtype": both.dtype,
        "axes": {
            f"tokens of the result, {steps[1]} steps": [
                _point((px // TOKEN_PX) ** 2, one(steps[1], px)) for px in sides_px
            ],
            "steps, one picture": [_point(taken, one(taken)) for taken in steps],
            f"pictures, {compared[0]['steps']} steps": [_point(row["pictures"], row) for row in compared],
        },
    }


def _point(at: int, row: Row) -> dict[str, Any]:
    return {"at": at, **{name: row["seconds"][name]["total"]["median"] for name in (OURS, REFERENCE)}}
