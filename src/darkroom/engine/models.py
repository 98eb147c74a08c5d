"""A checkpoint's three models, where the memory plan has them and in the form they compute in."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch

from darkroom.checkpoint.compare import compare
from darkroom.checkpoint.layout import Component, Layout
from darkroom.checkpoint.tensors import UNUSED, needed_tensors
from darkroom.engine import attention
from darkroom.engine.beside import Beside
from darkroom.engine.fusion import CompileMode, choose
from darkroom.engine.lend import HOST, lend_from_host
from darkroom.engine.linear import OUTLIERS, Float8Linear, PackedLinear, can_pack, reform
from darkroom.engine.load import WithoutMemory, fill
from darkroom.engine.overlay import Overlay
from darkroom.engine.text import TextEncoder
from darkroom.engine.transformer import FUSED, Transformer, TransformerConfig
from darkroom.engine.vae import Vae
from darkroom.memory.needs import Part
from darkroom.memory.plan import Place, Plan

FLOAT8 = "float8_e4m3fn"
MODULATION = ("img_mod.", "txt_mod.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    transformer: Transformer
    text: TextEncoder
    vae: Vae


def load_models(
    layout: Layout, plan: Plan, *, device: torch.device, dtype: torch.dtype, mode: CompileMode = "auto"
) -> Models:
    """mode: whether to compile. Raises `BadCheckpoint`, `BadSetting`."""
    for part in (layout.transformer, layout.text_encoder, layout.vae):
        stored = {name: tensor for name, tensor in part.tensors.items() if name not in UNUSED}
        compare(needed_tensors(part), stored).raise_for(part.name)
    return Models(
        transformer=load_transformer(layout.transformer, plan, device=device, dtype=dtype, mode=mode),
        text=TextEncoder.load(
            layout.text_encoder,
            layout.tokenizer,
            device=device,
            dtype=dtype,
            on_host=plan[Part.TEXT_ENCODER].place == Place.HOST,
        ),
        vae=Vae.load(layout.vae, device=device, dtype=dtype, memory_bytes=plan.working_bytes),
    )


def make_overlay(transformer: Transformer, plan: Plan) -> Overlay | Beside:
    """What applies LoRAs, as planned."""
    if plan.run_copy == Place.NONE:
        return Beside(transformer)
    rest_at = None if plan.run_copy == Place.DEVICE else HOST
    return Overlay(transformer, max_bytes=plan.merged_bytes, rest_at=rest_at)


def load_transformer(
    component: Component, plan: Plan, *, device: torch.device, dtype: torch.dtype, mode: CompileMode
) -> Transformer:
    """Block by block, each brought into its form before the next, so that no more lies on the device than is planned.

    Raises `BadCheckpoint`, `BadSetting`.
    """
    blocks_bytes = plan[Part.BLOCKS].size_bytes
    chosen = replace(choose(mode, device, blocks_bytes), attend=attention.choose(device, dtype))
    with WithoutMemory():
        transformer = Transformer(TransformerConfig.read(component.config), chosen)
    keep_at = {Place.DEVICE: device, Place.HOST: HOST, Place.NONE: None}[plan.run_copy]
    lent = plan[Part.MODULATION].place == Place.HOST
    for index, block in enumerate(transformer.blocks):
        own = component.under(f"transformer_blocks.{index}.")
        for name in MODULATION:
            fill(block.get_submodule(name[:-1]), own.under(name), device=HOST if lent else device, dtype=dtype)
        fill(block, own, device=device, dtype=dtype, fused=FUSED, leave=MODULATION)
        block.attn.halve_pairs()
        last = index == len(transformer.blocks) - 1
        if plan[Part.BLOCKS].dtype == FLOAT8:
            reform(block, partial(Float8Linear, kernels=chosen, keep_at=keep_at), leave=OUTLIERS, last=last)
        elif can_pack(device, dtype):
            reform(block, PackedLinear, last=last)
    fill(transformer, component, device=device, dtype=dtype, leave=("transformer_blocks.",))
    if lent:
        lend_from_host(chain(*(block.modulation for block in transformer.blocks)), device)
    return transformer
