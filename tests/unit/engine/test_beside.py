"""LoRAs run beside the matrices, held to the same LoRAs merged into them."""

from functools import partial

import pytest
import torch

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.published import PUBLISHED
from darkroom.engine.adapter import Difference, Kronecker, load_adapter
from darkroom.engine.beside import Beside
from darkroom.engine.engine import Engine
from darkroom.engine.kernels import PLAIN
from darkroom.engine.lend import lend
from darkroom.engine.linear import OUTLIERS, Float8Linear, PackedLinear, can_pack, reform
from darkroom.engine.models import make_overlay
from darkroom.engine.overlay import Overlay
from darkroom.lora.convert import convert
from darkroom.memory.needs import Needs
from darkroom.memory.plan import GB, Device, make_plan
from edits import an_edit, some_pictures
from loras import LAYOUTS, MODULES, make_pairs, save

STRENGTHS = (("diffusers", 1.0), ("kohya", -0.6), ("lightx2v", 2.5))
EDIT, PICTURES = an_edit(pictures=2), some_pictures(2)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Three, by name; each changes every module."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {}
    for seed, (name, _) in enumerate(STRENGTHS):
        path = save(folder / f"{name}.safetensors", LAYOUTS[name].write(make_pairs(ranks=(2, 4), seed=seed)))
        convert(path, folder / name, MODULES)
        made[name] = load_adapter(folder / name)
    return made


@torch.inference_mode()
def latents(engine):
    prepared = engine.prepare(EDIT, PICTURES)
    return engine._denoise(EDIT, prepared, engine._encode(EDIT, prepared), lambda _: None)


def far(one, other):
    return float((one - other).norm() / other.norm())


@pytest.fixture
def engine(request, tiny_checkpoint):
    dtype = getattr(request, "param", "float32")
    return Engine.load(tiny_checkpoint, device="cpu", dtype=dtype)


@pytest.mark.parametrize(("engine", "rounding"), [("float32", 1e-5), ("bfloat16", 0.06)], indirect=["engine"])
def test_they_do_what_merged_ones_do(engine, adapters, rounding):
    """Three at once in every module, the fused projections and modulation included: in float32 to rounding, in bfloat16
    much nearer than to the model without them. Without them it computes what it did, bit for bit."""
    transformer = engine._models.transformer
    bare = latents(engine)
    overlay, beside = Overlay(transformer, max_bytes=0), Beside(transformer)
    overlay.use(STRENGTHS, adapters.__getitem__)
    merged = latents(engine)
    overlay.use((), adapters.__getitem__)
    beside.use(STRENGTHS, adapters.__getitem__)
    assert far(latents(engine), merged) < rounding
    assert far(bare, merged) > 5 * rounding
    beside.use((), adapters.__getitem__)
    assert torch.equal(latents(engine), bare)


@pytest.mark.parametrize("form", ["packed", "float8", "lent"])
def test_they_run_beside_matrices_in_any_form(tiny_checkpoint, adapters, form):
    """What they add to a layer's product is the same, though the matrix is there in that form alone."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16", compile="off")._models.transformer
    block = transformer.blocks[0]
    if form == "packed" and not can_pack(torch.device("cpu"), torch.bfloat16):
        pytest.skip("oneDNN has no bfloat16 here")
    if form == "float8":
        block.attn.to_out[0] = torch.nn.Linear(64, 64, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
        reform(block, partial(Float8Linear, kernels=PLAIN), leave=OUTLIERS, last=False)
    layer = block.img_mod[1] if form == "lent" else block.attn.to_out[0]
    name = f"transformer_blocks.0.{'img_mod.1' if form == 'lent' else 'attn.to_out.0'}.weight"
    assert isinstance(layer, {"packed": PackedLinear, "float8": Float8Linear, "lent": torch.nn.Linear}[form])
    if form == "lent":
        lend([layer], lambda value: value.clone())
    x = torch.randn(2, 5, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        before = layer(x)
        Beside(transformer).use((("kohya", 2.0),), adapters.__getitem__)
        added = x.float() @ sum(2.0 * change.delta() for change in adapters["kohya"][name]).t()
        torch.testing.assert_close(layer(x).float(), before.float() + added, rtol=0.02, atol=0.02)
        assert float(added.abs().max()) > 0.2


def test_changes_of_no_low_rank_run_beside_too(engine):
    """LoKr and whole differences, of queries in their halved order as well; biases are merged."""
    torch.manual_seed(0)
    name = "transformer_blocks.0.attn"
    kronecker = Kronecker(w1=(torch.randn(4, 4),), w2=(torch.randn(16, 16),), scale=0.05)
    adapter = {
        f"{name}.to_q.weight": (kronecker,),
        f"{name}.to_out.0.weight": (Difference(value=0.1 * torch.randn(64, 64), scale=1.0),),
        f"{name}.to_out.0.bias": (Difference(value=torch.randn(64), scale=1.0),),
    }
    overlay, beside = Overlay(engine._models.transformer, max_bytes=0), Beside(engine._models.transformer)
    bare = latents(engine)
    overlay.use((("a", 1.0),), lambda _: adapter)
    merged = latents(engine)
    overlay.use((), lambda _: adapter)
    beside.use((("a", 1.0),), lambda _: adapter)
    assert far(latents(engine), merged) < 1e-5 < far(bare, merged)


def test_a_set_that_could_not_be_loaded_is_not_taken_for_one_in_use(engine, adapters):
    """After it, the one before is loaded anew."""
    beside, one = Beside(engine._models.transformer), STRENGTHS[:1]
    beside.use(one, adapters.__getitem__)
    expected = latents(engine)
    with pytest.raises(KeyError):
        beside.use((("gone", 1.0),), adapters.__getitem__)
    beside.use(one, adapters.__getitem__)
    assert torch.equal(latents(engine), expected)
    assert beside.merged == {(), one}


@pytest.mark.parametrize(("memory_gb", "kind"), [(64, Beside), (140, Overlay)])
def test_the_plan_chooses(engine, memory_gb, kind):
    """At the published size a CPU with room for a second copy merges, one without runs LoRAs beside the weights."""
    needs = Needs.read(PUBLISHED["Qwen/Qwen-Image-Edit-2509"], WorkingSizes())
    device = Device(name="cpu", kind="cpu", memory_bytes=memory_gb * GB)
    plan = make_plan(needs, device, dtype="bfloat16", tier="exact", cache_bytes=0)
    assert isinstance(make_overlay(engine._models.transformer, plan), kind)
