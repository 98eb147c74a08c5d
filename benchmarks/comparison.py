"""Ours against the reference pipeline: the same edits, on the same checkpoint, in turns."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.request import Request, make_request
from benchmarks.sides import Stages, Theirs, ours
from benchmarks.timing import Spread, in_turns
from benchmarks.work import MEMO_BYTES
from darkroom.engine.device import Precision
from darkroom.engine.engine import Engine

WARM_UP_STEPS = 2
"""The fewest for which the reference's schedule is made of numbers."""


class Comparison:
    """Both sides in one dtype. compiled: the reference with its transformer's blocks compiled, where that works."""

    def __init__(self, checkpoint: Path, dtype: Precision, *, compiling: bool) -> None:
        self.dtype = dtype
        self.engine = Engine.load(checkpoint, device="cpu", dtype=dtype, memo_bytes=MEMO_BYTES)
        self.reference = Theirs(checkpoint, getattr(torch, dtype))
        self.compiled: Theirs | None = None
        self.compiling: dict[str, Any] = {"dtype": dtype, "tried": compiling}
        if compiling:
            self._compile(Theirs(checkpoint, getattr(torch, dtype)))

    def _compile(self, theirs: Theirs) -> None:
        started = time.perf_counter()
        theirs.pipeline.transformer.compile_repeated_blocks(dynamic=True)
        try:
            theirs.edit(make_request(0, steps=WARM_UP_STEPS))
        except RuntimeError as error:
            self.compiling |= {"failed": str(error).strip().splitlines()[0]}
            return
        self.compiled = theirs
        self.compiling |= {"seconds": round(time.perf_counter() - started, 1)}

    def row(self, *, pictures: int, steps: int, rounds: int, budget_s: float, compiled: bool = False) -> dict[str, Any]:
        """compiled: beside the plain reference, where it compiles."""
        sides = {"ours": partial(ours, self.engine), "reference": self.reference.edit}
        if compiled and self.compiled is not None:
            sides["compiled"] = self.compiled.edit

        def call(edit: Callable[[Request], Stages], number: int) -> Stages:
            return edit(make_request(number, pictures=pictures, steps=steps if number else WARM_UP_STEPS))

        found = in_turns(
            {name: partial(call, edit) for name, edit in sides.items()},
            rounds=rounds,
            budget_s=budget_s,
            about=f"{self.dtype}, {pictures} picture(s), {steps} steps, {' · '.join(sides)}",
        )
        return {
            "dtype": self.dtype,
            "pictures": pictures,
            "steps": steps,
            "ratios": {name: _ratios(found[name], found["ours"]) for name in sides if name != "ours"},
            "seconds": {name: _seconds(stages) for name, stages in found.items()},
        }


def _ratios(theirs: list[Stages], ours: list[Stages]) -> dict[str, Any]:
    """By stage, of theirs over ours in the same round."""
    return {
        stage: Spread.of([one[stage] / other[stage] for one, other in zip(theirs, ours, strict=True)]).row()
        for stage in ours[0]
    }


def _seconds(stages: list[Stages]) -> dict[str, Any]:
    return {stage: Spread.of([each[stage] for each in stages]).row() for stage in stages[0]}
