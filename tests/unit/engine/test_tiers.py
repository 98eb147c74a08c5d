"""The fast tier: what float8 costs, in the picture."""

import numpy as np
import pytest
import torch

from darkroom.checkpoint.layout import read_layout
from darkroom.engine.engine import Engine
from darkroom.engine.linear import Float8Linear
from darkroom.engine.models import load_models
from darkroom.memory.needs import Needs
from darkroom.memory.plan import Device, make_plan
from edits import an_edit, some_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine(tiny_checkpoint):
    return Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")


@pytest.fixture
def fast(tiny_checkpoint):
    """The engine as it would be on a GPU that multiplies float8; a CPU does so too, only not faster."""
    layout = read_layout(tiny_checkpoint)
    configs = {part.name: part.config for part in (layout.transformer, layout.text_encoder, layout.vae)}
    gpu = Device(name="a GPU", kind="cuda", memory_bytes=10**11, multiplies_fp8=True)
    plan = make_plan(Needs.read(configs, layout.working_sizes), gpu, dtype="bfloat16", tier="fast", cache_bytes=0)
    made = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    made._models = load_models(layout, plan, device=CPU, dtype=torch.bfloat16)
    return made


def pixels(engine, **asked):
    edit = an_edit(steps=8, **asked)
    return np.asarray(engine.edit(edit, some_pictures(1), lambda _: None).image, dtype=float)


def test_float8_moves_the_picture_less_than_another_seed_does(engine, fast):
    """It is another rounding of the same picture: far nearer to it than to a picture of other noise. On weights this
    sharp every rounding shows; how near it is on the real model is measured by benchmarks/gpu.py."""
    assert any(isinstance(module, Float8Linear) for module in fast._models.transformer.modules())
    exact = pixels(engine)
    rounding = np.abs(pixels(fast) - exact).mean()
    assert 0 < rounding < np.abs(pixels(engine, seed=2) - exact).mean() / 2


def test_the_fast_tier_is_off_where_the_device_has_no_float8(tiny_checkpoint, engine):
    """On a CPU the tiers are one: same weights, same pixels."""
    same = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16", tier="fast")
    assert np.array_equal(pixels(same), pixels(engine))
