import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.layout import read_layout
from darkroom.errors import BadCheckpoint


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A checkpoint that may be changed."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_checkpoint_is_read(tiny_checkpoint):
    """Every part is there with its class, config and tensors, shards as one."""
    layout = read_layout(tiny_checkpoint)
    assert layout.transformer.class_name == "QwenImageTransformer2DModel"
    assert layout.transformer.config["num_layers"] == 3
    assert len({tensor.file for tensor in layout.transformer.tensors.values()}) == 2
    tensor = layout.transformer.tensors["txt_norm.weight"]
    assert (tensor.shape, tensor.dtype, tensor.parameters, tensor.size_bytes) == ((64,), "BF16", 64, 128)
    assert layout.tokenizer == tiny_checkpoint / "tokenizer"
    assert layout.working_sizes == WorkingSizes(output_area_px=192**2, vae_area_px=160**2, condition_area_px=128**2)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/merges.txt",
        "processor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(folder, file):
    """The error names the file that is not there."""
    (folder / file).unlink()
    with pytest.raises(BadCheckpoint, match=file.rpartition("/")[2]):
        read_layout(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_file_that_is_no_json_object_is_named(folder, text):
    """Broken JSON is an error of the checkpoint, with the file's name."""
    (folder / "vae" / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadCheckpoint, match=r"vae/config\.json"):
        read_layout(folder)


def test_another_pipeline_is_refused(folder):
    """A checkpoint of another model is named as such."""
    change(folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(BadCheckpoint, match="FluxPipeline"):
        read_layout(folder)


def test_another_class_of_part_is_refused(folder):
    """The right pipeline with another transformer is no better."""
    change(folder / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"])
    with pytest.raises(BadCheckpoint, match="FluxTransformer2DModel"):
        read_layout(folder)


def test_a_truncated_shard_is_named(folder):
    """A download broken off is found by the header, before anything is loaded."""
    shard = folder / "text_encoder" / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match=shard.name):
        read_layout(folder)


def test_a_tensor_that_the_index_promises_in_vain_is_named(folder):
    """Index and shards must agree."""
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    entries = json.loads(index.read_text())
    entries["weight_map"]["img_in.weight"] = "diffusion_pytorch_model-00002-of-00002.safetensors"
    index.write_text(json.dumps(entries))
    with pytest.raises(BadCheckpoint, match=r"img_in\.weight is missing"):
        read_layout(folder)


@pytest.mark.parametrize("shard", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", 7])
def test_an_index_can_t_point_elsewhere(folder, shard):
    """Shards lie beside their index."""
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    change(index, weight_map={"img_in.weight": shard})
    with pytest.raises(BadCheckpoint, match="not the name of a file beside it"):
        read_layout(folder)


def test_the_same_tensor_in_two_shards_is_refused(folder):
    """Two values for one tensor are never chosen between."""
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    first, second = sorted(folder.glob("transformer/*.safetensors"))
    shutil.copy(first, second)
    placed = json.loads(index.read_text())["weight_map"]
    change(index, weight_map=dict(zip(placed, [first.name, *[second.name] * (len(placed) - 1)], strict=True)))
    with pytest.raises(BadCheckpoint, match="is also in"):
        read_layout(folder)


def test_text_encoder_names_of_either_age_are_the_published_ones(folder, tiny_checkpoint):
    """What transformers 5 saves has other names for the same tensors."""
    index = folder / "text_encoder" / "model.safetensors.index.json"
    placed = {}
    for shard in sorted(folder.glob("text_encoder/*.safetensors")):
        renamed = {new_name(name): value for name, value in load_file(shard).items()}
        save_file(renamed, shard)
        placed |= dict.fromkeys(renamed, shard.name)
    change(index, weight_map=placed)
    old, new = read_layout(tiny_checkpoint).text_encoder.tensors, read_layout(folder).text_encoder.tensors
    assert old.keys() == new.keys()
    assert new["model.norm.weight"].key == "model.language_model.norm.weight"


def new_name(name):
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name
