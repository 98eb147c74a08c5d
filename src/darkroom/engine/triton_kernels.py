"""The transformer's small operations as Triton kernels for CUDA: what `kernels.PLAIN` computes, each in one pass.

A program is a token: it reads the token's channels once, computes in float32, and writes them once. Channels must lie
side by side in memory, tokens need not. What differs between requests (`first`, `text_tokens`) is not specialised on,
so that no request waits for a compiler.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from darkroom.engine.kernels import EPS, FLOAT8, PLAIN, Gains, Kernels

_EPS = tl.constexpr(EPS)
_FLOAT8_MAX = tl.constexpr(torch.finfo(FLOAT8).max)


@triton.jit(do_not_specialize=["text_tokens"])
def _join_kernel(
    text, image, text_gain, text_gain_2, image_gain, image_gain_2, cos, sin, out,
    text_tokens, text_stride, image_stride,
    turned: tl.constexpr, heads: tl.constexpr, half: tl.constexpr,
    head_block: tl.constexpr, half_block: tl.constexpr,
):  # fmt: skip
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    if token < text_tokens:
        row = text + token * text_stride
        gain = text_gain if part == 0 else text_gain_2
    else:
        row = image + (token - text_tokens) * image_stride
        gain = image_gain if part == 0 else image_gain_2
    dim: tl.constexpr = heads * 2 * half
    head, channel = tl.arange(0, head_block)[:, None], tl.arange(0, half_block)[None, :]
    in_half = channel < half
    inside = (head < heads) & in_half
    place = head * (2 * half) + channel
    read = row + part * dim + place
    written = out + (part * tl.num_programs(0) + token) * dim + place
    stored, stored_half = tl.load(read, mask=inside, other=0.0), tl.load(read + half, mask=inside, other=0.0)
    if part < turned:
        first, second = stored.to(tl.float32), stored_half.to(tl.float32)
        mean_square = (tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)) / (2 * half)
        scale = tl.rsqrt(mean_square + _EPS)[:, None]
        first *= scale * tl.load(gain + channel, mask=in_half, other=0.0).to(tl.float32)
        second *= scale * tl.load(gain + half + channel, mask=in_half, other=0.0).to(tl.float32)
        turn_cos = tl.load(cos + token * half + channel, mask=in_half, other=0.0)
        turn_sin = tl.load(sin + token * half + channel, mask=in_half, other=0.0)
        tl.store(written, first * turn_cos - second * turn_sin, mask=inside)
        tl.store(written + half, first * turn_sin + second * turn_cos, mask=inside)
    else:
        tl.store(written, stored, mask=inside)
        tl.store(written + half, stored_half, mask=inside)


@triton.jit(do_not_specialize=["first"])
def _modulate_kernel(
    x, gate, update, scale, shift, kept, out, first,
    x_batch, x_token, update_batch, update_token, gate_row, scale_row, shift_row,
    dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row = (token >= first).to(tl.int64)
    channel = tl.arange(0, block)
    inside = channel < dim
    place = (batch * tl.num_programs(0) + token) * dim + channel
    value = tl.load(x + batch * x_batch + token * x_token + channel, mask=inside, other=0.0).to(tl.float32)
    if update is not None:
        added = tl.load(update + batch * update_batch + token * update_token + channel, mask=inside, other=0.0)
        value += tl.load(gate + row * gate_row + channel, mask=inside, other=0.0).to(tl.float32) * added.to(tl.float32)
        rounded = value.to(kept.dtype.element_ty)
        tl.store(kept + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if scale is not None:
        centred = tl.where(inside, value - tl.sum(value) / dim, 0.0)
        normed = centred * tl.rsqrt(tl.sum(centred * centred) / dim + _EPS)
        normed *= tl.load(scale + row * scale_row + channel, mask=inside, other=0.0).to(tl.float32)
        normed += tl.load(shift + row * shift_row + channel, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + place, normed, mask=inside)


@triton.jit
def _float8_kernel(rows, out, scales, stride, dim: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, block)
    inside = channel < dim
    value = tl.load(rows + row * stride + channel, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value)), 1e-12) / _FLOAT8_MAX
    tl.store(scales + row, scale)
    tl.store(out + row * dim + channel, (value / scale).to(out.dtype.element_ty), mask=inside)


def _joined(
    text: Tensor, image: Tensor, text_gains: Gains, image_gains: Gains, cos: Tensor, sin: Tensor
) -> tuple[Tensor, ...]:
    text, image = _whole_tokens(text), _whole_tokens(image)
    parts, heads, head_dim = image.shape[1:]
    out = image.new_empty(parts, len(text) + len(image), heads, head_dim)
    gains = text_gains[0], text_gains[-1], image_gains[0], image_gains[-1]
    arguments = (text, image, *gains, cos.contiguous(), sin.contiguous(), out, len(text))
    sizes = len(text_gains), heads, head_dim // 2
    blocks = triton.next_power_of_2(heads), triton.next_power_of_2(head_dim // 2)
    grid = out.shape[1], parts
    _launch(_join_kernel, grid, *arguments, text.stride(0), image.stride(0), *sizes, *blocks, num_warps=4)
    return out.unbind()


def _modulated(x: Tensor, scale: Tensor, shift: Tensor, first: int) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _modulate(x, None, None, scale, shift, None, out, first)
    return out


def _gated(x: Tensor, gate: Tensor, update: Tensor, first: int) -> Tensor:
    kept = torch.empty_like(x, memory_format=torch.contiguous_format)
    _modulate(x, gate, update, None, None, kept, None, first)
    return kept


def _gated_modulated(
    x: Tensor, gate: Tensor, update: Tensor, scale: Tensor, shift: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    kept, out = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
    _modulate(x, gate, update, scale, shift, kept, out, first)
    return kept, out


def _modulate(
    x: Tensor,
    gate: Tensor | None,
    update: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    kept: Tensor | None,
    out: Tensor | None,
    first: int,
) -> None:
    batch, tokens, dim = x.shape
    x, update = _side_by_side(x), None if update is None else _side_by_side(update)
    strides = *x.stride()[:2], *((0, 0) if update is None else update.stride()[:2])
    rows = map(_row_stride, (gate, scale, shift))
    arguments = (x, gate, update, scale, shift, kept, out, first)
    block = triton.next_power_of_2(dim)
    _launch(_modulate_kernel, (tokens, batch), *arguments, *strides, *rows, dim, block, num_warps=8)


def _to_float8(rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = _side_by_side(rows)
    count, dim = rows.shape
    out = torch.empty(rows.shape, dtype=FLOAT8, device=rows.device)
    scales = rows.new_empty(count, 1, dtype=torch.float32)
    block = triton.next_power_of_2(dim)
    num_warps = 16 if block > 8192 else 8
    _launch(_float8_kernel, (count,), rows, out, scales, rows.stride(0), dim, block, num_warps=num_warps)
    return out, scales


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, num_warps: int) -> None:
    """On the device that the first argument lies on, which need not be the current one."""
    if all(grid):
        with torch.cuda.device_of(arguments[0]):
            kernel[grid](*arguments, num_warps=num_warps)


def _row_stride(rows: Tensor | None) -> int:
    """From the first tokens' row to the others'. One row is for all."""
    return 0 if rows is None or len(rows) == 1 else rows.stride(0)


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _whole_tokens(x: Tensor) -> Tensor:
    """[tokens, parts, heads, head_dim] in which all of a token lies side by side."""
    return x if x[:1].is_contiguous() else x.contiguous()


TRITON = Kernels(
    joined=_joined,
    attend=PLAIN.attend,
    modulated=_modulated,
    gated=_gated,
    gated_modulated=_gated_modulated,
    gelu=PLAIN.gelu,
    to_float8=_to_float8,
)
