import json
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from darkroom.checkpoint.layout import Component, read_layout
from darkroom.checkpoint.quantised import with_scales
from darkroom.checkpoint.weights import read_weights
from darkroom.engine.engine import Engine
from darkroom.engine.load import WithoutMemory, fill
from darkroom.errors import BadCheckpoint


def load(folder):
    return Engine.load(folder, device="cpu", dtype="float32")._models


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def reindex(folder, stem):
    placed = {key: shard.name for shard in folder.glob("*.safetensors") for key in load_file(shard)}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


@pytest.fixture
def vae_file(folder):
    return folder / "vae" / "diffusion_pytorch_model.safetensors"


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_qkv = nn.Linear(8, 3 * 8)
        self.norm = nn.RMSNorm(8)
        self.register_buffer("table", torch.arange(4.0), persistent=False)


class Small(nn.Module):
    """A model with each kind of parameter there is: single, fused, renamed."""

    FUSED = MappingProxyType({"to_qkv": ("to_q", "to_k", "to_v")})

    def __init__(self):
        super().__init__()
        self.layer = Attention()
        self.out = nn.Linear(8, 6)


SMALL = {
    **{
        f"model.layer.to_{each}.{leaf}": shape for each in "qkv" for leaf, shape in (("weight", (8, 8)), ("bias", (8,)))
    },
    "model.layer.norm.weight": (8,),
    "model.out.weight": (6, 8),
    "model.out.bias": (6,),
}
"""Its tensors as stored."""


def some_values(dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SMALL.items()}


def fill_small(folder, tensors, dtype=torch.float32):
    """`Small`, filled from a file of these tensors: its values by their stored names, fused ones taken apart."""
    save_file(tensors, folder / "model.safetensors")
    stored = with_scales(read_weights(folder, "model"))
    component = Component(name="small", class_name="Small", config={}, tensors=stored)
    with WithoutMemory():
        module = Small()
    cpu = torch.device("cpu")
    fill(module, component, device=cpu, dtype=dtype, published=lambda name: f"model.{name}", fused=Small.FUSED)
    fused = module.layer.to_qkv
    return module, {
        "model.layer.norm.weight": module.layer.norm.weight,
        "model.out.weight": module.out.weight,
        "model.out.bias": module.out.bias,
        **{f"model.layer.to_{each}.weight": rows for each, rows in zip("qkv", fused.weight.chunk(3), strict=True)},
        **{f"model.layer.to_{each}.bias": rows for each, rows in zip("qkv", fused.bias.chunk(3), strict=True)},
    }


def test_every_parameter_has_its_stored_value(tmp_path):
    """Fused rows, renamed tensors and single ones alike: nothing is left unfilled, and buffers are what they were."""
    values = some_values()
    module, found = fill_small(tmp_path, values)
    assert found.keys() == values.keys()
    assert all(torch.equal(found[name], value.float()) for name, value in values.items())
    assert torch.equal(module.layer.table, torch.arange(4.0))
    assert not module.training
    for value in module.parameters():
        assert value.device.type == "cpu"
        assert not value.requires_grad


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("transformer/config.json", {"num_layers": "three"}),
        ("text_encoder/config.json", {"hidden_size": None}),
        ("vae/config.json", {"dim_mult": 4}),
    ],
)
def test_a_config_that_makes_no_sense_is_an_error_of_the_checkpoint(folder, change, file, entry):
    """The error names the part whose config.json it is."""
    change(file, **entry)
    with pytest.raises(BadCheckpoint, match=file.replace(".", r"\.")):
        load(folder)


def test_a_missing_tensor_is_named(folder, vae_file):
    """The error names the tensor and the part."""
    rewrite(vae_file, lambda tensors: tensors.pop("quant_conv.bias"))
    with pytest.raises(BadCheckpoint, match=r"vae .*quant_conv\.bias is missing"):
        load(folder)


def test_an_extra_tensor_is_named(folder, vae_file):
    """A tensor the model has no place for is an error: it may be another model's."""
    rewrite(vae_file, lambda tensors: tensors.update({"quant_conv.scale": torch.ones(1)}))
    with pytest.raises(BadCheckpoint, match=r"quant_conv\.scale is unexpected"):
        load(folder)


def test_a_tensor_of_another_shape_is_named(folder, vae_file):
    """Both shapes are told, and nothing is broadcast."""
    rewrite(vae_file, lambda tensors: tensors.update({"quant_conv.bias": torch.ones(1)}))
    with pytest.raises(BadCheckpoint, match=r"quant_conv\.bias \(1, not 32\) is of the wrong shape"):
        load(folder)


def test_a_wrong_part_of_a_fused_tensor_is_named_as_published(folder, change):
    """Errors speak of the file's tensors, not of how they are kept."""
    change("transformer/config.json", num_layers=2)
    with pytest.raises(BadCheckpoint, match=r"transformer_blocks\.2\.attn\.add_k_proj\.bias"):
        load(folder)


FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("stored", FLOATS, ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_what_a_file_is_stored_in_does_not_decide_what_is_computed_in(tmp_path, stored, wanted):
    """Every float is read for its value and kept in the precision asked for, in single and in fused parameters."""
    values = some_values(stored)
    module, found = fill_small(tmp_path, values, wanted)
    assert all(torch.equal(found[name], value.to(wanted)) for name, value in values.items())
    assert {value.dtype for value in module.parameters()} == {wanted}


def test_dtypes_may_differ_from_tensor_to_tensor_and_from_shard_to_shard(folder, tiny_checkpoint):
    """Norms in float32 beside matrices in 8 bits, in one file and across files, as mixed files have them."""
    plain = dict(load(tiny_checkpoint).transformer.named_parameters())
    first, second = sorted(folder.glob("transformer/*.safetensors"))
    rewrite(first, lambda tensors: tensors.update({key: widened(value) for key, value in tensors.items()}))
    rewrite(second, lambda tensors: tensors.update({key: narrowed(value) for key, value in tensors.items()}))
    mixed = dict(load(folder).transformer.named_parameters())
    assert len({tensor.dtype for tensor in read_layout(folder).transformer.tensors.values()}) == 3
    assert all(torch.allclose(mixed[name], value, rtol=2**-4, atol=2**-9) for name, value in plain.items())


def widened(value):
    return value.float() if value.dim() == 1 else value


def narrowed(value):
    return value if value.dim() == 1 else value.to(torch.float8_e4m3fn)


@pytest.mark.parametrize("float8", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), ("rows",), ("rows", 1)], ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_scales_are_multiplied_in_on_loading(tmp_path, float8, word, shape, wanted):
    """Each form of scale met in files of this model, in single and in fused parameters: the product is computed in
    float32 and rounded once, to the precision asked for; what has no scale is left as it is."""
    tensors = some_values()
    expected = {name: value.to(wanted) for name, value in tensors.items()}
    for name in [name for name in tensors if name.endswith(("to_q.weight", "to_v.weight", "out.weight"))]:
        sides = tuple(len(tensors[name]) if side == "rows" else side for side in shape)
        scale = torch.rand(sides) / 100
        tensors[name] = (tensors[name].float() * 50).to(float8)
        tensors[name.removesuffix("weight") + word] = scale
        expected[name] = (tensors[name].float() * (scale.view(-1, 1))).to(wanted)
    _, found = fill_small(tmp_path, tensors, wanted)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_single_file_gives_the_weights_of_the_shards_it_was_made_of(folder, tiny_checkpoint):
    """ComfyUI's form, with its prefix and another name, and the published one are the same, bit by bit."""
    merged = {}
    for shard in folder.glob("transformer/*.safetensors"):
        merged |= load_file(shard)
        shard.unlink()
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    prefixed = {f"model.diffusion_model.{key}": value for key, value in merged.items()}
    save_file(prefixed, folder / "transformer" / "qwen_image_edit_2509.safetensors")
    shards = dict(load(tiny_checkpoint).transformer.named_parameters())
    single = dict(load(folder).transformer.named_parameters())
    assert shards.keys() == single.keys()
    assert all(torch.equal(single[name], value) for name, value in shards.items())


def test_a_text_encoder_may_be_one_scaled_file_too(folder, tiny_checkpoint):
    """ComfyUI's: the older names, any file name, a scale to a layer and an empty tensor that says so."""
    merged = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for shard in folder.glob("text_encoder/*.safetensors"):
        for key, value in load_file(shard).items():
            merged[key] = value
            if "_proj.weight" in key:
                scale = value.float().abs().max() / 400
                merged[key] = (value / scale).to(torch.float8_e4m3fn)
                merged |= {key.removesuffix("weight") + word: scale.clone() for word in ("scale_weight", "scale_input")}
        shard.unlink()
    (folder / "text_encoder" / "model.safetensors.index.json").unlink()
    save_file(merged, folder / "text_encoder" / "qwen_2.5_vl_7b_fp8_scaled.safetensors")
    plain = dict(load(tiny_checkpoint).text._model.named_parameters())
    scaled = dict(load(folder).text._model.named_parameters())
    for name, value in plain.items():
        assert (scaled[name] - value).abs().max() <= 0.1 * value.abs().max(), name


@pytest.mark.parametrize("kept", ["model.embed_tokens.weight", "lm_head.weight"])
def test_of_tied_tensors_a_file_may_keep_either(folder, change, kept):
    """Where head and embedding are one tensor, it is found under whichever name it was stored."""
    change("text_encoder/config.json", tie_word_embeddings=True)
    embedding = {}
    for shard in folder.glob("text_encoder/*.safetensors"):

        def drop(tensors):
            tensors.pop("lm_head.weight", None)
            if "model.embed_tokens.weight" in tensors:
                embedding["value"] = tensors.pop("model.embed_tokens.weight")
                tensors[kept] = embedding["value"]

        rewrite(shard, drop)
    reindex(folder / "text_encoder", "model")
    loaded = load(folder).text._model.language_model.embed_tokens.weight
    assert torch.equal(loaded, embedding["value"].float())


def test_a_text_encoder_without_head_is_whole(folder):
    """Files that leave out the head, which is not needed, are taken."""
    for shard in folder.glob("text_encoder/*.safetensors"):
        rewrite(shard, lambda tensors: tensors.pop("lm_head.weight", None))
    reindex(folder / "text_encoder", "model")
    load(folder)
