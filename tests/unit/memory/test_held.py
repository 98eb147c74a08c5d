"""The plan's figures, held against the bytes that an engine of that plan has."""

import gc

import pytest
import torch
from torch import Tensor, nn

from darkroom.checkpoint.layout import read_layout
from darkroom.engine import overlay as overlays
from darkroom.engine.adapter import Difference
from darkroom.engine.crew import Crew
from darkroom.engine.held import values_of
from darkroom.engine.linear import PACK_FROM_STEPS, PackedLinear
from darkroom.engine.models import load_transformer, make_overlay
from darkroom.engine.overlay import targets_of
from darkroom.memory.needs import Needs, Part, _part
from darkroom.memory.plan import GB, Device, Place, make_plan

CPU = torch.device("cpu")
WHOLE, MATRICES, NONE = (("whole", 1.0),), (("matrices", 1.0),), ()


def held_bytes():
    """Of all tensors there are, each memory once."""
    found = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter) and not one.is_meta]
    packed = sum(one.numel() * one.element_size() for one in found if one.is_mkldnn)
    storages = [one.untyped_storage() for one in found if one.layout == torch.strided]
    return packed + sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def adapters_for(transformer):
    """One that changes every parameter, and one that changes the blocks' matrices. They take next to no memory."""
    nothing, last = torch.zeros(1), len(transformer.blocks) - 1
    whole = {}
    for name, target in targets_of(transformer):
        shape = values_of(target.module, target.parameter)[target.rows].shape
        whole[name] = (Difference(value=nothing.expand(shape), scale=1.0),)
    matrices = {name for name in whole if _part(name, last=last) in (Part.BLOCKS, Part.KEPT_EXACT)}
    return {"whole": whole, "matrices": {name: whole[name] for name in matrices}}


def plan_of(layout, kind, dtype, tier, places):
    """The first, of ever less memory, that has its run copies there."""
    configs = {part.name: part.config for part in (layout.transformer, layout.text_encoder, layout.vae)}
    needs, memory_bytes = Needs.read(configs, layout.working_sizes), 100 * GB
    while True:
        device = Device(name="a device", kind=kind, memory_bytes=memory_bytes, multiplies_fp8=True)
        plan = make_plan(needs, device, dtype=dtype, tier=tier, cache_bytes=0)
        if (plan.run_copy, plan[Part.NEXT_COPY].place) == places:
            return plan
        memory_bytes = plan.device_bytes - 1


@pytest.mark.parametrize(
    ("kind", "dtype", "tier", "places"),
    [
        ("cuda", "bfloat16", "fast", (Place.DEVICE, Place.DEVICE)),
        ("cuda", "bfloat16", "fast", (Place.DEVICE, Place.NONE)),
        ("cuda", "bfloat16", "fast", (Place.HOST, Place.NONE)),
        ("cpu", "float32", "exact", (Place.DEVICE, Place.DEVICE)),
        ("cpu", "float32", "exact", (Place.DEVICE, Place.NONE)),
    ],
)
def test_a_transformer_and_its_sets_hold_what_is_planned(tiny_checkpoint, kind, dtype, tier, places):
    """At the most just that, to the byte: where one set changes all of the model, the next one its matrices, and the
    model as it was loaded is in use. What a CPU does not pack, the last block's queries, keys and values, the plan has
    once too often."""
    layout = read_layout(tiny_checkpoint)
    plan = plan_of(layout, kind, dtype, tier, places)
    gc.collect()
    before = held_bytes()
    transformer = load_transformer(layout.transformer, plan, device=CPU, dtype=getattr(torch, dtype), mode="off")
    overlay, adapters = make_overlay(transformer, plan), adapters_for(transformer)
    before += adapters["whole"]["img_in.weight"][0].value.untyped_storage().nbytes()
    planned = sum(each.size_bytes for each in plan.parts if each.part not in (Part.TEXT_ENCODER, Part.VAE))
    if any(isinstance(module, PackedLinear) for module in transformer.modules()):
        attention = transformer.blocks[-1].attn
        planned -= attention.to_qkv.weight.nbytes + attention.add_qkv_proj.weight.nbytes

    held = []
    for strengths in (WHOLE, NONE, MATRICES, WHOLE, NONE):
        overlay.use(strengths, adapters.__getitem__, steps=PACK_FROM_STEPS)
        if strengths == WHOLE:
            overlay.merge_ahead(MATRICES, adapters.__getitem__, steps=PACK_FROM_STEPS)
        held.append(held_bytes() - before)
    assert max(held) == planned


def test_a_set_that_replaces_another_is_never_beside_it(tiny_checkpoint, monkeypatch):
    """With the run copy on the host the device has room for one: what is evicted goes as the next one comes. On a GPU
    one matrix is merged at a time."""
    monkeypatch.setattr(overlays, "Crew", lambda _: Crew(1))
    layout = read_layout(tiny_checkpoint)
    plan = plan_of(layout, "cuda", "bfloat16", "fast", (Place.HOST, Place.NONE))
    transformer = load_transformer(layout.transformer, plan, device=CPU, dtype=torch.bfloat16, mode="off")
    made, adapters = make_overlay(transformer, plan), adapters_for(transformer)
    made.use(WHOLE, adapters.__getitem__)
    between, held, merge = held_bytes(), [], overlays.merging

    def merging(*arguments):
        held.append(held_bytes())
        return merge(*arguments)

    monkeypatch.setattr(overlays, "merging", merging)
    made.use((("whole", 2.0),), adapters.__getitem__)
    largest = max(parameter.nbytes for parameter in transformer.parameters())
    assert held
    assert max(held) <= between + 2 * largest
