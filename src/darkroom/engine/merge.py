"""A parameter with what several adapters add to it: one product of all their factors, rounded once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from darkroom.engine.adapter import Change, LowRank
from darkroom.engine.kernels import halved
from darkroom.engine.linear import can_pack

Changes = Sequence[tuple[Change, float]]
"""Each at its strength."""

_PAIRS = ((0, 0), (1, 0), (0, 1))
"""Of two sums' parts. The product of both remainders is less than float32 would keep of the whole."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a parameter, and what is added to them. heads: of queries and keys, whose rows are halved; 0 for all
    else."""

    rows: slice
    heads: int
    changes: Changes


def merging(values: Tensor, parts: Sequence[Part], out: Tensor | None = None) -> Callable[[], Tensor]:
    """What makes the sum when it is called: all that is large is left to that.

    values: of any shape, float32 or bfloat16; they are left as they are. out: written to, if there is one; it has their
    shape, dtype and device. Adapters lie there too.
    """
    total = torch.empty_like(values) if out is None else out
    steps = [_adding(values[part.rows], part, total[part.rows]) for part in parts]
    if sum(len(total[part.rows]) for part in parts) < len(total):
        steps.insert(0, partial(total.copy_, values))

    def merged() -> Tensor:
        for step in steps:
            step()
        return total

    return merged


def _adding(pristine: Tensor, part: Part, target: Tensor) -> Callable[[], object]:
    low_rank = [(change, strength) for change, strength in part.changes if isinstance(change, LowRank)]
    if len(low_rank) == len(part.changes) and _sums_in_float32(pristine.device, pristine.dtype):
        return partial(torch.addmm, pristine, *factors(low_rank, part.heads, pristine.dtype), out=target)

    def add() -> None:
        wide = pristine.to(torch.float32, copy=True)
        if low_rank:
            wide.addmm_(*factors(low_rank, part.heads, wide.dtype))
        for change, strength in part.changes:
            if not isinstance(change, LowRank):
                delta = strength * change.delta()
                wide.add_(halved(delta, part.heads) if part.heads else delta)
        target.copy_(wide)

    return add


def factors(
    changes: Sequence[tuple[LowRank, float]], heads: int, dtype: torch.dtype, *, exact: bool = True
) -> tuple[Tensor, Tensor]:
    """[out, ranks] and [ranks, in], whose product is the sum of all the changes. heads: as `Part` has it. exact: to
    float32, though it may take more ranks; else each factor is rounded."""
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    for change, strength in changes:
        up, down = _split(change.b, strength * change.scale, dtype), _split(change.a, 1.0, dtype)
        for first, second in _PAIRS if exact else _PAIRS[:1]:
            if first < len(up) and second < len(down):
                ups.append(up[first])
                downs.append(down[second])
    up_all = torch.cat(ups, 1)
    return halved(up_all, heads) if heads else up_all, torch.cat(downs)


def _split(values: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Values times scale, as a sum of tensors of this dtype: one where that holds it, else the rounded and the rest."""
    if values.dtype == dtype and scale == 1:
        return (values,)
    if dtype == torch.float32:
        return (values.float() * scale,)
    if values.dtype == dtype and abs(math.frexp(scale)[0]) == 0.5:
        return (values * scale,)
    wide = values.float() * scale
    rounded = wide.to(dtype)
    return rounded, (wide - rounded.float()).to(dtype)


@cache
def _sums_in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this device multiplies in this dtype fast, and sums in float32."""
    return dtype == torch.float32 or device.type == "cuda" or can_pack(device, dtype)
