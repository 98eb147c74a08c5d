"""How much of what the machine can multiply the denoiser's linear layers reach."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Spread, in_turns, seconds
from benchmarks.work import Work
from darkroom.engine.engine import Engine
from darkroom.engine.linear import PackedLinear, can_pack

LINEAR = ("aten::linear", "mkldnn::_linear_pointwise")
HOW = (
    "Floor: the best rate of one product of two large squares, timed in turns with the denoiser. Linear layers: "
    "2 · rows · in · out of every `aten::linear` and `mkldnn::_linear_pointwise` that torch.profiler records in a "
    "denoise stage, over the time it records for them. Own shapes alone: the same products by themselves, each at the "
    "better of stored and packed weights."
)


@dataclass(frozen=True)
class Shape:
    """rows × inward, times inward × outward."""

    rows: int
    inward: int
    outward: int

    @property
    def flop(self) -> int:
        return 2 * self.rows * self.inward * self.outward


def measure(engine: Engine, *, pictures: int, steps: int, rounds: int, side: int) -> dict[str, Any]:
    """side: of the square matrices that set the floor."""
    dtype = engine._models.transformer.dtype
    work = Work(engine, pictures=pictures, steps=steps)
    square = torch.randn(side, side, dtype=dtype)
    shapes: Counter[Shape] = Counter()

    def floor(_: int) -> float:
        return 2 * side**3 / seconds(lambda: square @ square)

    def linear(_: int) -> float:
        taken, found = _profiled(work)
        shapes.clear()
        shapes.update(found)
        return _flop(found) / taken

    rates = in_turns({"floor": floor, "linear": linear}, rounds=rounds, about=f"floor {dtype}")
    best, own = max(rates["floor"]), _flop(shapes) / sum(n * _alone(each, dtype) for each, n in shapes.items())
    reached = Spread.of(rates["linear"])
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "pictures": pictures,
        "floor_tflops": round(best / 1e12, 4),
        "own_shapes_tflops": round(own / 1e12, 4),
        "linear_tflops": {name: value / 1e12 if name != "count" else value for name, value in reached.row().items()},
        "of_floor": round(reached.median / best, 4),
        "of_own_shapes": round(reached.median / own, 4),
        "gflop_in_a_stage": round(_flop(shapes) / 1e9, 1),
    }


def _profiled(work: Work) -> tuple[float, Counter[Shape]]:
    """Seconds within linear layers in one denoise stage, and their shapes."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        work.denoise()
    taken_us, shapes = 0.0, Counter[Shape]()
    for event in recorded.key_averages(group_by_input_shape=True):
        if event.key in LINEAR:
            given, weight = event.input_shapes[:2]
            shapes[Shape(math.prod(given[:-1]), given[-1], weight[0])] += event.count
            taken_us += event.cpu_time_total
    return taken_us / 1e6, shapes


def _alone(shape: Shape, dtype: torch.dtype, repeats: int = 5) -> float:
    """Seconds it takes by itself at best."""
    stored = nn.Linear(shape.inward, shape.outward, dtype=dtype).requires_grad_(requires_grad=False)
    forms: list[nn.Module] = [stored, *([PackedLinear(stored)] if can_pack(torch.device("cpu"), dtype) else [])]
    given: Tensor = torch.randn(shape.rows, shape.inward, dtype=dtype)
    with torch.inference_mode():
        return min(seconds(lambda: form(given)) for form in forms for _ in range(repeats))  # noqa: B023  called at once


def _flop(shapes: Counter[Shape]) -> int:
    return sum(count * shape.flop for shape, count in shapes.items())
