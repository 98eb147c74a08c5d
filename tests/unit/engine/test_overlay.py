"""LoRAs merged into the transformer's weights."""

import hashlib
import random
from pathlib import Path

import pytest
import torch

from darkroom.engine.adapter import load_adapter, merged_weights
from darkroom.engine.engine import Engine
from darkroom.engine.held import values_of
from darkroom.engine.kernels import PLAIN, halved
from darkroom.engine.linear import Float8Linear, PackedLinear
from darkroom.engine.overlay import Overlay, strengths_of
from darkroom.engine.transformer import FUSED
from darkroom.lora.convert import AdapterFile, convert
from edits import an_edit, some_pictures
from loras import LAYOUTS, MODULES, make_pairs, save

PLENTY = 2**30
NAMES = ("diffusers", "kohya", "lightx2v")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Three, by name, in as many layouts; each changes every module."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {}
    for seed, name in enumerate(NAMES):
        pairs = make_pairs(ranks=(2, 4), seed=seed)
        path = save(folder / f"{name}.safetensors", LAYOUTS[name].write(pairs))
        convert(path, folder / name, MODULES)
        made[name] = load_adapter(folder / name)
    return made


@pytest.fixture(params=["float32", "bfloat16"])
def transformer(request, tiny_checkpoint):
    return Engine.load(tiny_checkpoint, device="cpu", dtype=request.param)._models.transformer


def digest(transformer):
    """Of all weights as they are computed with."""
    hashed = hashlib.sha256()
    for name, module in sorted(transformer.named_modules()):
        for parameter in ("weight", "bias"):
            if getattr(module, parameter, None) is not None:
                hashed.update(f"{name}.{parameter}".encode())
                hashed.update(values_of(module, parameter).float().numpy().tobytes())
    return hashed.hexdigest()


def published(transformer):
    """Every parameter by its published name, its rows in the published order."""
    found = {}
    heads = transformer.config.num_attention_heads
    for path, module in transformer.named_modules():
        parent, _, own = path.rpartition(".")
        for parameter in ("weight", "bias"):
            if getattr(module, parameter, None) is None:
                continue
            values = values_of(module, parameter)
            if own not in FUSED:
                is_gain = own.startswith("norm_") and own != "norm_out"
                found[f"{path}.{parameter}"] = whole(values, 1) if is_gain else values
                continue
            for index, (part, rows) in enumerate(zip(FUSED[own], values.chunk(3), strict=True)):
                found[f"{parent}.{part}.{parameter}"] = whole(rows, heads) if index < 2 else rows
    return found


def whole(rows, heads):
    """The inverse of `halved`."""
    order = halved(torch.arange(rows.shape[0]), heads)
    return torch.empty_like(rows).index_copy_(0, order, rows)


def test_a_set_is_merged_as_the_plain_sum_is(transformer, adapters):
    """Three at once at different strengths: every parameter within a rounding of the reference formula, no other
    changed."""
    before = {name: value.clone() for name, value in published(transformer).items()}
    strengths = (("diffusers", 1.0), ("kohya", -0.6), ("lightx2v", 2.5))
    Overlay(transformer, max_bytes=PLENTY).use(strengths, adapters.__getitem__)
    after = published(transformer)
    expected = merged_weights(before, [(adapters[name], strength) for name, strength in strengths])
    assert expected
    for name, value in after.items():
        coarse = value.dtype == torch.bfloat16
        rounding = {"rtol": 1.6e-2, "atol": 1e-4} if coarse else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(value, expected.get(name, before[name]), **rounding, msg=name)
        assert torch.equal(value, before[name]) == (name not in expected), name


def test_nothing_drifts_over_a_thousand_switches(transformer, adapters):
    """The same set gives the same weights, bit for bit, whenever it comes; without any they are as they were loaded."""
    overlay, pristine = Overlay(transformer, max_bytes=2**20), digest(transformer)
    sets = [(), (("diffusers", 1.0),), (("diffusers", 0.5),), (("kohya", 1.0), ("lightx2v", -1.0))]
    found, drawn = {(): pristine}, random.Random(0)
    for number in range(1000):
        strengths = drawn.choice(sets)
        overlay.use(strengths, adapters.__getitem__)
        if number % 25 == 0 or strengths not in found:
            assert found.setdefault(strengths, digest(transformer)) == digest(transformer)
    assert len(set(found.values())) == len(sets)
    overlay.use((), adapters.__getitem__)
    assert digest(transformer) == pristine


def test_what_was_used_last_is_kept_within_its_bytes(tiny_checkpoint, adapters):
    """A kept set is used without its files; within no bytes at all one set is kept, that in use."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")._models.transformer
    loads = []

    def load(name):
        loads.append(name)
        return adapters[name]

    one, two = (("diffusers", 1.0),), (("kohya", 1.0),)
    roomy = Overlay(transformer, max_bytes=PLENTY)
    for strengths in (one, two, one, two):
        roomy.use(strengths, load)
    assert loads == ["diffusers", "kohya"]
    assert roomy.holds(one)
    roomy.use((), load)
    loads.clear()
    tight = Overlay(transformer, max_bytes=0)
    for strengths in (one, one, two, one):
        tight.use(strengths, load)
    assert loads == ["diffusers", "kohya", "diffusers"]
    assert not tight.holds(two)


def test_packed_matrices_are_merged_too(tiny_checkpoint, adapters):
    """They are packed again, and an edit under the set is that of a model loaded without packing."""
    packed = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
    assert any(isinstance(module, PackedLinear) for module in packed._models.transformer.modules())
    edit, pictures = an_edit(), some_pictures(1)
    before = packed.edit(edit, pictures, lambda _: None).image.tobytes()
    overlay = Overlay(packed._models.transformer, max_bytes=PLENTY)
    overlay.use((("kohya", 1.0),), adapters.__getitem__)
    assert packed.edit(edit, pictures, lambda _: None).image.tobytes() != before
    overlay.use((), adapters.__getitem__)
    assert packed.edit(edit, pictures, lambda _: None).image.tobytes() == before


def test_float8_is_made_of_merged_weights(tiny_checkpoint, adapters):
    """What is brought to float8 is the sum, not the change; afterwards the float8 weights are those of before."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16", compile="off")._models.transformer
    block, name = transformer.blocks[0], "transformer_blocks.0.img_mlp.net.0.proj.weight"
    plain = torch.nn.Linear(64, 256, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
    coarse = Float8Linear(plain, PLAIN, keep_at=torch.device("cpu"))
    block.img_mlp.net[0].proj = coarse
    before = coarse.weight.float(), coarse.scale
    overlay = Overlay(transformer, max_bytes=PLENTY)
    overlay.use((("kohya", 2.0),), adapters.__getitem__)
    merged = merged_weights({**published(transformer), name: plain.weight.data}, [(adapters["kohya"], 2.0)])[name]
    torch.testing.assert_close(coarse.weight.float() * coarse.scale, merged.float(), rtol=1 / 16, atol=1e-3)
    overlay.use((), adapters.__getitem__)
    assert torch.equal(coarse.weight.float(), before[0])
    assert torch.equal(coarse.scale, before[1])


def test_a_set_is_named_by_what_it_does():
    """Not by the order it came in: strengths of one file add up, and a file without strength is none."""
    path = Path("any")

    def named(*pairs):
        return strengths_of(AdapterFile(path=path, digest=digest, strength=strength) for digest, strength in pairs)

    assert named(("b", 1.0), ("a", 0.5), ("b", 0.25)) == (("a", 0.5), ("b", 1.25))
    assert named(("a", 1.0), ("b", 0.0)) == (("a", 1.0),)
    assert named(("a", 1.0), ("a", -1.0)) == ()
