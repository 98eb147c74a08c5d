import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.checkpoint.layout import Component, read_layout
from darkroom.checkpoint.tensors import needed_tensors
from darkroom.engine.engine import load_models
from darkroom.engine.load import WithoutMemory, _places
from darkroom.engine.transformer import FUSED, Transformer, TransformerConfig
from darkroom.errors import BadCheckpoint


def load(folder):
    return load_models(read_layout(folder), device=torch.device("cpu"), dtype=torch.float32)


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.fixture
def vae_file(folder):
    return folder / "vae" / "diffusion_pytorch_model.safetensors"


def test_every_parameter_has_its_stored_value(tiny_checkpoint):
    """Fused rows, renamed tensors and single ones alike: nothing is left unfilled and nothing is lost."""
    models = load(tiny_checkpoint)
    layout = read_layout(tiny_checkpoint)
    stored = {
        key: value
        for shard in tiny_checkpoint.glob("transformer/*.safetensors")
        for key, value in load_file(shard).items()
    }
    attention = models.transformer.blocks[1].attn
    for number, name in enumerate(("to_q", "to_k", "to_v")):
        rows = attention.to_qkv.weight.chunk(3)[number]
        assert torch.equal(rows, stored[f"transformer_blocks.1.attn.{name}.weight"].float())
    assert torch.equal(models.transformer.proj_out.bias, stored["proj_out.bias"].float())
    everything = (models.transformer, models.text._model, models.vae._model)
    for module, part in zip(everything, (layout.transformer, layout.text_encoder, layout.vae), strict=True):
        head = part.tensors["lm_head.weight"].parameters if "lm_head.weight" in part.tensors else 0
        assert sum(parameter.numel() for parameter in module.parameters()) + head == sum(
            tensor.parameters for tensor in part.tensors.values()
        )
        for value in (*module.parameters(), *module.buffers()):
            assert value.device.type == "cpu"
            assert value.dtype == torch.float32
            assert not value.requires_grad


def test_at_the_published_size_every_tensor_has_its_place():
    """The full transformer, built without memory, takes the published names and shapes, all of them and no others."""
    config = {
        "attention_head_dim": 128,
        "in_channels": 64,
        "joint_attention_dim": 3584,
        "num_attention_heads": 24,
        "num_layers": 60,
        "out_channels": 16,
        "patch_size": 2,
    }
    with WithoutMemory():
        model = Transformer(TransformerConfig.read(config))
    places = {name: place.shape for name, place in _places(model, FUSED)}
    component = Component(name="transformer", class_name="", config=config, tensors={})
    assert places == needed_tensors(component)
    assert sum(parameter.numel() for parameter in model.parameters()) == 20_430_401_088


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


def test_a_quantised_tensor_is_refused_by_name(folder, vae_file):
    """A form that is not read is never taken for numbers."""
    rewrite(vae_file, lambda tensors: tensors.update({"quant_conv.bias": torch.ones(32).to(torch.float8_e4m3fn)}))
    with pytest.raises(BadCheckpoint, match=r"quant_conv\.bias is stored as F8_E4M3"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_weights_stored_in_another_precision_are_converted(folder, vae_file, dtype):
    """What a file is stored in does not decide what is computed in."""
    rewrite(vae_file, lambda tensors: tensors.update({key: value.to(dtype) for key, value in tensors.items()}))
    assert next(load(folder).vae._model.parameters()).dtype == torch.float32


def test_a_text_encoder_without_head_is_whole(folder):
    """Files that leave out the head, which is not needed, are taken."""
    for shard in folder.glob("text_encoder/*.safetensors"):
        rewrite(shard, lambda tensors: tensors.pop("lm_head.weight", None))
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text("".join(line for line in index.read_text().splitlines(keepends=True) if "lm_head" not in line))
    load(folder)
