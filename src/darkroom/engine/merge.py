"""A parameter with what several adapters add to it: one product of all their factors, rounded once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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


def merged(values: Tensor, parts: Sequence[Part], out: Tensor | None = None) -> Tensor:
    """values: of any shape, float32 or bfloat16; they are left as they are. out: written to, if there is one; it has
    their shape, dtype and device."""
    out = torch.empty_like(values) if out is None else out
    rows = range(values.shape[0])
    if sum(len(rows[part.rows]) for part in parts) < len(rows):
        out.copy_(values)
    for part in parts:
        pristine, target = values[part.rows], out[part.rows]
        low_rank = [(change, strength) for change, strength in part.changes if isinstance(change, LowRank)]
        if len(low_rank) == len(part.changes) and _sums_in_float32(values.device, values.dtype):
            torch.addmm(pristine, *factors(low_rank, part.heads, pristine), out=target)
            continue
        wide = pristine.to(torch.float32, copy=True)
        if low_rank:
            wide.addmm_(*factors(low_rank, part.heads, wide))
        for change, strength in part.changes:
            if not isinstance(change, LowRank):
                delta = strength * change.delta().to(wide.device)
                wide.add_(halved(delta, part.heads) if part.heads else delta)
        target.copy_(wide)
    return out


def factors(
    changes: Sequence[tuple[LowRank, float]], heads: int, like: Tensor, *, exact: bool = True
) -> tuple[Tensor, Tensor]:
    """[out, ranks] and [ranks, in], whose product is the sum of all the changes, in the dtype and on the device of
    `like`. heads: as `Part` has it. exact: to float32, though it may take more ranks; else each factor is rounded."""
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    for change, strength in changes:
        up = _split(change.b.to(like.device), strength * change.scale, like.dtype)
        down = _split(change.a.to(like.device), 1.0, like.dtype)
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
