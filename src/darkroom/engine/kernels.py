"""The transformer's operations beside its matrices. The small ones are each one pass over memory where the device has a
way: between matrix products they take the time, not the arithmetic.

`PLAIN` is torch as it is, and what the others are held against. `compiled` is the same functions, fused by torch's
compiler; `triton_kernels.TRITON` are written for CUDA. Queries and keys come with the pairs that positions turn as two
halves (`halved`), which vectorises.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor

from darkroom.engine.attention import Attend, fused

EPS = 1e-6


FLOAT8 = torch.float8_e4m3fn

Gains = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """joined(text, image, text_gains, image_gains, cos, sin): two streams' queries, keys or values, or several of these
    side by side, as [tokens, parts, heads, head_dim]; each part of both, one below the other. The first parts, as many
    as there are gains, [head_dim] each, by RMS norm over the last axis and the rotation of its halves; the others as
    they are. cos, sin: [tokens of both, head_dim / 2].
    attend(query, key, value): attention, see `attention`.
    modulated(x, scale, shift, first): layer norm of x, [B, tokens, D], times scale plus shift. scale, shift: [1, D], or
    [2, D] with a row for the `first` tokens and one for the others.
    gated(x, gate, update, first): x plus gate times update; gate as `modulated` has its scale.
    gated_modulated(x, gate, update, scale, shift, first): what `gated` gives, and that modulated.
    gelu(x): GELU by its tanh form.
    to_float8(rows): [n, in] in float8, and what each row is to be multiplied by, [n, 1], its largest value filling the
    format.
    """

    joined: Callable[[Tensor, Tensor, Gains, Gains, Tensor, Tensor], tuple[Tensor, ...]]
    attend: Attend
    modulated: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    gated: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    gated_modulated: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
    gelu: Callable[[Tensor], Tensor]
    to_float8: Callable[[Tensor], tuple[Tensor, Tensor]]


def _turned(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS) * gain.float()
    first, second = normed.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)


def _joined(
    text: Tensor, image: Tensor, text_gains: Gains, image_gains: Gains, cos: Tensor, sin: Tensor
) -> tuple[Tensor, ...]:
    tokens = text.shape[0]
    parts = list(zip(text.unbind(1), image.unbind(1), strict=True))
    for n, (text_gain, image_gain) in enumerate(zip(text_gains, image_gains, strict=True)):
        above, below = parts[n]
        parts[n] = (
            _turned(above, text_gain, cos[:tokens], sin[:tokens]),
            _turned(below, image_gain, cos[tokens:], sin[tokens:]),
        )
    return tuple(map(torch.cat, parts))


def _modulated(x: Tensor, scale: Tensor, shift: Tensor, first: int) -> Tensor:
    dim = x.shape[-1:]
    if scale.shape[0] == 1:
        return F.layer_norm(x, dim, scale[0], shift[0], EPS)
    parts = x[:, :first], x[:, first:]
    return torch.cat([F.layer_norm(part, dim, scale[n], shift[n], EPS) for n, part in enumerate(parts)], dim=1)


def _gated(x: Tensor, gate: Tensor, update: Tensor, first: int) -> Tensor:
    if gate.shape[0] == 1:
        return torch.addcmul(x, gate, update)
    return torch.cat(
        [
            torch.addcmul(x[:, :first], gate[:1], update[:, :first]),
            torch.addcmul(x[:, first:], gate[1:], update[:, first:]),
        ],
        dim=1,
    )


def _gated_modulated(
    x: Tensor, gate: Tensor, update: Tensor, scale: Tensor, shift: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    kept = _gated(x, gate, update, first)
    return kept, _modulated(kept, scale, shift, first)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_by_sigmoid(x: Tensor) -> Tensor:
    """1 + tanh u = 2 sigmoid 2u, which takes one exponential instead of a tangent."""
    wide = x.float()
    return (wide * torch.sigmoid(1.5957691216057308 * (wide + 0.044715 * wide * wide * wide))).to(x.dtype)


def _to_float8(rows: Tensor) -> tuple[Tensor, Tensor]:
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / torch.finfo(FLOAT8).max
    return (wide / scale).to(FLOAT8), scale


PLAIN = Kernels(
    joined=_joined,
    attend=fused,
    modulated=_modulated,
    gated=_gated,
    gated_modulated=_gated_modulated,
    gelu=_gelu,
    to_float8=_to_float8,
)


@cache
def compiled() -> Kernels:
    """Fused at their first call, for all sizes at once."""

    def compile_(function: Callable[..., Any]) -> Any:
        return torch.compile(function, dynamic=True, fullgraph=True, options={"compile_threads": 1})

    return replace(
        PLAIN,
        joined=compile_(_joined),
        gelu=compile_(_gelu_by_sigmoid),
        to_float8=compile_(_to_float8),
    )


def halved(rows: Tensor, heads: int) -> Tensor:
    """Every head's neighbouring pairs of rows brought apart: (0, 1), (2, 3), … to (0, n/2), (1, n/2 + 1), and so on.

    rows: of a projection or a gain, [heads · head_dim, …]. Attention does not see it, since queries and keys are
    reordered alike.
    """
    by_head = torch.unflatten(rows, 0, (heads, -1, 2))
    return by_head.transpose(1, 2).reshape(rows.shape)
