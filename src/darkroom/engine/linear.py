"""The transformer's matrices in the form they are multiplied in, made once from the form they are stored in.

torch's own doors to oneDNN's packed weights and to float8 products have no public names yet.
"""
# ruff: noqa: SLF001

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor, nn

from darkroom.engine.kernels import Kernels

OUTLIERS = ("img_mlp.net.2", "txt_mlp.net.2")
"""What the fast tier leaves exact. What is fed to the image's has a few channels far larger than the rest, which float8
would drown the rest for. The text's is fed a prompt's tokens, few and of four widths, where float8 fails on Hopper."""

FEWEST_ROWS = 272
"""Of a float8 product. On Hopper cuBLAS refuses 256 and fewer of 9,216 values each (pytorch/ao, issue 4582)."""

PACK_FROM_STEPS = 8
"""Packing takes as long as about four steps with packed matrices save."""

_PACKED_FOR_TOKENS = 1024


class PackedLinear(nn.Module):
    """On a CPU: in the blocked layout oneDNN multiplies by. A weight in the plain layout may stand in its place: it is
    brought into that layout at every call."""

    def __init__(self, stored: nn.Linear) -> None:
        super().__init__()
        self.weight = pack(stored.weight.data)
        self.bias = stored.bias

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product


class Float8Linear(nn.Module):
    """Weight [out, in] in float8 with a scale for every row; what comes in is brought to float8 token by token.

    keep_at: where the stored weight is kept, from which others can be made; None: nowhere.
    """

    def __init__(self, stored: nn.Linear, kernels: Kernels, keep_at: torch.device | None = None) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight, self.scale = kernels.to_float8(stored.weight.data)
        self.bias = stored.bias
        self.stored = None if keep_at is None else stored.weight.data.to(keep_at)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        count = len(rows)
        if count < FEWEST_ROWS:
            rows = F.pad(rows, (0, 0, 0, FEWEST_ROWS - count))
        tokens, scale = self.kernels.to_float8(rows)
        product: Tensor = torch._scaled_mm(
            tokens,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale.t(),
            bias=self.bias,
            out_dtype=x.dtype,
            use_fast_accum=x.is_cuda,
        )
        return torch.unflatten(product[:count], 0, x.shape[:-1])


def pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_TOKENS)
    return packed


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN, and oneDNN this dtype on this processor."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_float8(device: torch.device) -> bool:
    """Whether the device multiplies float8 in hardware (Ada, Hopper and later)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def reform(
    block: nn.Module, form: Callable[[nn.Linear], nn.Module], *, leave: tuple[str, ...] = (), last: bool
) -> None:
    """Replace the linear layers of a transformer's block, save for modulation, those whose names end with one of
    `leave`, and the last block's projections to queries, keys and values, whose rows it multiplies apart."""
    kept = (*leave, "_mod.1", *(("to_qkv", "add_qkv_proj") if last else ()))
    for name, module in [*block.named_modules()]:
        if isinstance(module, nn.Linear) and not name.endswith(kept):
            block.set_submodule(name, form(module))
