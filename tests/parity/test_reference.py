"""The engine against the reference pipeline, both in float32 on the CPU, on a checkpoint where every term counts."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from darkroom.engine.engine import Engine
from edits import an_edit, some_pictures
from parity.compare import assert_alike, levels_between
from parity.oracle import Reference
from parity.ours import run_stages

EDITS = {
    "one picture": an_edit(steps=4),
    "two pictures, tall": an_edit(pictures=2, aspect_ratio=(9, 16), prompt="把天空变成红色", seed=2),
    "three pictures, wide": an_edit(pictures=3, aspect_ratio=(21, 9), negative_prompt="blurred, dark", seed=3),
    "scale 1": an_edit(true_cfg_scale=1.0, seed=4),
    "nothing to guide away from": an_edit(pictures=2, negative_prompt=None, seed=5),
    "no words": an_edit(prompt="", steps=3, seed=6),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_every_stage_agrees_with_the_reference(reference, engine, edit):
    """Each stage is within 1e-4 of the reference pipeline's, and the picture within a level of 255."""
    pictures = some_pictures(len(edit.pictures))
    assert_alike(run_stages(engine, edit, pictures), reference.edit(edit, pictures))


VARIANTS = {
    "zero_cond_t": ("transformer/config.json", {"zero_cond_t": True}),
    "Lightning's schedule": (
        "scheduler/scheduler_config.json",
        {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None},
    ),
    "a fixed shift": ("scheduler/scheduler_config.json", {"use_dynamic_shifting": False, "shift": 3.0}),
    "a linear shift": ("scheduler/scheduler_config.json", {"time_shift_type": "linear"}),
}


@pytest.mark.parametrize(("file", "changes"), VARIANTS.values(), ids=VARIANTS)
def test_variants_of_the_checkpoint_agree_too(tiny_checkpoint, tmp_path, file, changes):
    """The successor's modulation of references at t = 0 and other schedules are the reference pipeline's as well."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "variant")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))
    edit, pictures = an_edit(pictures=2, steps=3), some_pictures(2)
    changed = run_stages(Engine.load(folder, device="cpu", dtype="float32"), edit, pictures)
    assert_alike(changed, Reference(folder).edit(edit, pictures))
    plain = Engine.load(tiny_checkpoint, device="cpu", dtype="float32").edit(edit, pictures, lambda _: None)
    assert levels_between(changed.picture, np.asarray(plain.image) / 255) >= 3, "the variant makes no difference"


def test_the_unpatched_reference_makes_another_picture(tiny_checkpoint, reference):
    """Not marking image tokens, as stock diffusers does, shows in the picture: parity proves that ours are."""
    edit, pictures = an_edit(pictures=2), some_pictures(2)
    stock = Reference(tiny_checkpoint, patched=False).edit(edit, pictures)
    assert levels_between(stock.picture, reference.edit(edit, pictures).picture) >= 9


def test_bfloat16_is_as_near_to_float32_as_the_references(tiny_checkpoint, reference, engine):
    """Computing coarsely costs no more than it costs the reference pipeline."""
    edit, pictures = an_edit(pictures=2), some_pictures(2)
    coarse = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16").edit(edit, pictures, lambda _: None).image
    fine = engine.edit(edit, pictures, lambda _: None).image
    theirs = Reference(tiny_checkpoint, dtype=torch.bfloat16).edit(edit, pictures).picture
    ours_off = np.abs(np.asarray(coarse, dtype=float) - np.asarray(fine, dtype=float)).mean() / 255
    assert ours_off <= 1.25 * np.abs(theirs - reference.edit(edit, pictures).picture).mean()


TERMS = (
    ("transformer", "txt_mod.1.weight"),
    ("transformer", "txt_mlp.net.2.bias"),
    ("transformer", "attn.norm_q.weight"),
    ("transformer", "attn.norm_added_q.weight"),
    ("transformer", "attn.to_add_out.bias"),
    ("transformer", "txt_norm.weight"),
    ("transformer", "norm_out.linear.bias"),
    ("text", "visual.merger.mlp.0.bias"),
    ("text", "visual.blocks.0.attn.qkv.weight"),
    ("text", "self_attn.k_proj.bias"),
    ("text", "language_model.norm.weight"),
    ("vae", "encoder.mid_block.resnets.0.norm1.gamma"),
    ("vae", "encoder.conv_out.bias"),
    ("vae", "decoder.norm_out.gamma"),
)


TERM_EDIT = an_edit(pictures=2), some_pictures(2)


@pytest.fixture(scope="module")
def whole(engine):
    """The picture with every term in."""
    return np.asarray(engine.edit(*TERM_EDIT, lambda _: None).image) / 255


@pytest.mark.parametrize(("part", "name"), TERMS, ids=[f"{part} {name}" for part, name in TERMS])
def test_every_term_counts(engine, whole, part, name):
    """Leaving out a term of the model moves the picture by more than the parity bar: so parity proves each of them."""
    model = {
        "transformer": engine._models.transformer,
        "text": engine._models.text._model,
        "vae": engine._models.vae._model,
    }[part]
    edit, pictures = TERM_EDIT
    left_out = [parameter for own, parameter in model.named_parameters() if own.endswith(name)]
    assert left_out
    gain = name.endswith(("gamma", "norm.weight", "_q.weight"))
    stored = [parameter.clone() for parameter in left_out]
    try:
        for parameter in left_out:
            parameter.fill_(float(gain))
        without = np.asarray(engine.edit(edit, pictures, lambda _: None).image) / 255
    finally:
        for parameter, value in zip(left_out, stored, strict=True):
            parameter.copy_(value)
    assert levels_between(whole, without) >= 2
