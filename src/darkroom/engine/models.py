"""A checkpoint's three models, on a device and in the form they compute in."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from darkroom.checkpoint.layout import Layout
from darkroom.checkpoint.tensors import needed_tensors
from darkroom.engine import kernels
from darkroom.engine.linear import OUTLIERS, Float8Linear, PackedLinear, can_float8, can_pack, reform
from darkroom.engine.load import WithoutMemory, fill
from darkroom.engine.text import TextEncoder
from darkroom.engine.transformer import FUSED, Transformer, TransformerConfig
from darkroom.engine.vae import Vae

Tier = Literal["exact", "fast"]
CompileMode = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    transformer: Transformer
    text: TextEncoder
    vae: Vae


def load_models(
    layout: Layout, *, device: torch.device, dtype: torch.dtype, tier: Tier = "exact", mode: CompileMode = "auto"
) -> Models:
    """mode: whether to compile. Raises `BadCheckpoint`, `BadSetting`."""
    for part in (layout.transformer, layout.text_encoder, layout.vae):
        # A config that makes no sense is told as such, before a library's class trips over it.
        needed_tensors(part)
    return Models(
        transformer=load_transformer(layout, device=device, dtype=dtype, tier=tier, mode=mode),
        text=TextEncoder.load(layout.text_encoder, layout.tokenizer, device=device, dtype=dtype),
        vae=Vae.load(layout.vae, device=device, dtype=dtype),
    )


def load_transformer(
    layout: Layout, *, device: torch.device, dtype: torch.dtype, tier: Tier = "exact", mode: CompileMode = "auto"
) -> Transformer:
    """Raises `BadCheckpoint`, `BadSetting`."""
    parameters = sum(map(math.prod, needed_tensors(layout.transformer).values()))
    chosen = kernels.choose(mode, device, parameters)
    with WithoutMemory():
        transformer = Transformer(TransformerConfig.read(layout.transformer.config), chosen)
    fill(transformer, layout.transformer, device=device, dtype=dtype, fused=FUSED)
    for block in transformer.blocks:
        block.attn.halve_pairs()
    if tier == "fast" and can_float8(device):
        reform(transformer.blocks, lambda stored: Float8Linear(stored, chosen), leave=OUTLIERS)
    elif can_pack(device, dtype):
        reform(transformer.blocks, PackedLinear)
    return transformer
