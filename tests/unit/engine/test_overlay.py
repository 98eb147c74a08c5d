"""LoRAs merged into the transformer's weights."""

import hashlib
import random
import threading
from pathlib import Path

import pytest
import torch

from darkroom.engine import overlay as overlays
from darkroom.engine.adapter import load_adapter, merged_weights
from darkroom.engine.crew import Crew
from darkroom.engine.engine import Engine
from darkroom.engine.held import size_bytes as size_bytes_of
from darkroom.engine.held import values_of
from darkroom.engine.kernels import PLAIN, halved
from darkroom.engine.linear import PACK_FROM_STEPS, Float8Linear, PackedLinear
from darkroom.engine.overlay import Overlay
from darkroom.engine.transformer import FUSED
from darkroom.lora.convert import AdapterFile, convert, strengths_of
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


@pytest.mark.parametrize("steps", [1, PACK_FROM_STEPS])
def test_several_threads_merge_what_one_does(transformer, adapters, monkeypatch, steps):
    """Bit for bit: over all matrices, merged, packed and put in place in any order, and put back."""
    pristine, found = digest(transformer), []
    for threads in (1, 3):
        monkeypatch.setattr(overlays, "Crew", lambda _, threads=threads: Crew(threads))
        overlay = Overlay(transformer, max_bytes=0)
        for strengths in ((("diffusers", 1.0), ("kohya", 0.5)), (("lightx2v", 1.0),)):
            overlay.use(strengths, adapters.__getitem__, steps=steps)
            found.append(digest(transformer))
        overlay.use((), adapters.__getitem__)
        assert digest(transformer) == pristine
    assert found[:2] == found[2:]
    assert found[0] != found[1]


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
    assert one in roomy.merged
    roomy.use((), load)
    loads.clear()
    tight = Overlay(transformer, max_bytes=0)
    for strengths in (one, one, two, one):
        tight.use(strengths, load)
    assert loads == ["diffusers", "kohya", "diffusers"]
    assert two not in tight.merged


def test_packed_matrices_are_merged_too(tiny_checkpoint, adapters):
    """For many steps they are packed again, for few they are plain, whatever was used before; without LoRAs they are as
    they were loaded, and so is an edit."""
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
    transformer = engine._models.transformer
    places = [module for module in transformer.modules() if isinstance(module, PackedLinear)]
    edit, pictures, strengths = an_edit(), some_pictures(1), (("kohya", 1.0),)
    overlay = Overlay(transformer, max_bytes=PLENTY)
    found = {}
    for steps in (1, PACK_FROM_STEPS, 1):
        for used in ((), strengths):
            overlay.use(used, adapters.__getitem__, steps=steps)
            changed = [module.weight for module in places if (module, "weight") in overlay._kept.get(used, {})]
            assert all(weight.is_mkldnn == (steps == PACK_FROM_STEPS) for weight in changed)
            assert used == () or changed
            made = engine.edit(edit, pictures, lambda _: None).image.tobytes()
            assert found.setdefault((used, used != () and steps), made) == made
        overlay.use((), adapters.__getitem__, steps=steps)
        assert all(module.weight.is_mkldnn for module in places)
    assert len(set(found.values())) > 1


def test_memory_of_an_evicted_set_is_written_to(tiny_checkpoint, adapters):
    """Where one set is kept, the next one's weights lie where its own lay, and no other memory is taken."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")._models.transformer
    overlay = Overlay(transformer, max_bytes=0)
    weight = transformer.blocks[0].img_mlp.net[2]
    lie = set()
    for name in (*NAMES, *NAMES):
        overlay.use(((name, 1.0),), adapters.__getitem__)
        lie.add(weight.weight.data_ptr())
    assert len(lie) == 1


@pytest.mark.parametrize("in_use", [(), (("diffusers", 1.0),)])
@pytest.mark.parametrize("steps", [1, 100])
def test_a_set_merged_ahead_changes_nothing_until_it_is_used(transformer, adapters, in_use, steps):
    """The weights in use stay as they are, and lie where they lay; once used, it is as if it had been merged then."""
    ahead = (("kohya", -0.6), ("lightx2v", 2.5))
    overlay = Overlay(transformer, max_bytes=PLENTY)
    found = {}
    for strengths in (ahead, in_use):
        overlay.use(strengths, adapters.__getitem__, steps=steps)
        found[strengths] = digest(transformer)
    overlay.use((), adapters.__getitem__)
    overlay = Overlay(transformer, max_bytes=PLENTY)
    overlay.use(in_use, adapters.__getitem__)
    lie = places_of(transformer)
    overlay.merge_ahead(ahead, adapters.__getitem__, steps=steps)
    assert digest(transformer) == found[in_use]
    assert lie == places_of(transformer)
    assert overlay.merged == {(), in_use, ahead}
    for strengths in (ahead, in_use, ahead):
        overlay.use(strengths, unread, steps=steps)
        assert digest(transformer) == found[strengths]
    overlay.use((), unread)


def places_of(transformer):
    """Where its plain tensors lie in memory."""
    tensors = [*transformer.parameters(), *transformer.buffers()]
    return [tensor.data_ptr() for tensor in tensors if not tensor.is_mkldnn]


def unread(name):
    raise AssertionError(f"{name} was read again")


def test_merging_ahead_takes_no_thread_but_the_callers(tiny_checkpoint, adapters, monkeypatch):
    """The others are the transformer's, which computes meanwhile."""
    threads, pack = set(), overlays.formed

    def formed(*arguments, **options):
        threads.add(threading.get_ident())
        return pack(*arguments, **options)

    monkeypatch.setattr(overlays, "formed", formed)
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")._models.transformer
    overlay = Overlay(transformer, max_bytes=PLENTY)
    overlay._crew = Crew(2)
    overlay.merge_ahead((("diffusers", 1.0),), adapters.__getitem__)
    assert threads == {threading.get_ident()}
    overlay.use((("kohya", 1.0),), adapters.__getitem__)
    assert len(threads) > 1


def test_nothing_is_merged_ahead_without_room(tiny_checkpoint, adapters):
    """Neither beside a set in use where one is kept, nor at its cost, nor where pristine weights rest elsewhere."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")._models.transformer
    one, two, three = ((name, 1.0) for name in NAMES)
    roomy = Overlay(transformer, max_bytes=PLENTY)
    roomy.use((one,), adapters.__getitem__)
    size_bytes = sum(size_bytes_of(held) for held in roomy._kept[one,].values())
    roomy.use((), adapters.__getitem__)
    for sets, max_bytes, rest_at in ((1, size_bytes, None), (2, 2 * size_bytes, None), (1, 0, torch.device("cpu"))):
        overlay = Overlay(transformer, max_bytes=max_bytes, rest_at=rest_at)
        overlay.use((one,), adapters.__getitem__)
        before = digest(transformer)
        for ahead in (two, three):
            overlay.merge_ahead((ahead,), adapters.__getitem__)
        assert digest(transformer) == before
        assert len(overlay._kept) == sets
        assert ((one,) in overlay.merged, (three,) in overlay.merged) == (True, sets == 2)
        overlay.use((), adapters.__getitem__)
    overlay = Overlay(transformer, max_bytes=size_bytes)
    overlay.merge_ahead((one,), adapters.__getitem__)
    assert overlay.merged == {(), (one,)}


def test_where_pristine_weights_rest_elsewhere_one_copy_is_kept(tiny_checkpoint, adapters):
    """Only what is in use is there at once, be it the model as it was loaded."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")._models.transformer
    overlay = Overlay(transformer, max_bytes=0, rest_at=torch.device("cpu"))
    one = (("kohya", 1.0),)
    for strengths, kept in ((one, 1), ((), 0), (one, 1)):
        overlay.use(strengths, adapters.__getitem__)
        assert overlay.merged == {strengths}
        assert len(overlay._kept) == kept
    overlay.use((), adapters.__getitem__)


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
