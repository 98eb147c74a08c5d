import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.checkpoint.layout import PARTS, Component, read_component
from darkroom.checkpoint.published import PUBLISHED
from darkroom.checkpoint.single_file import REFERENCES_AT_ZERO
from darkroom.checkpoint.tensors import needed_tensors
from darkroom.errors import BadCheckpoint

CONFIG = {**PUBLISHED["Qwen/Qwen-Image-Edit-2509"]["transformer"], "num_layers": 2, "num_attention_heads": 1}
CONFIG |= {"joint_attention_dim": 24, "in_channels": 12, "out_channels": 3}
INDEX = {"transformer": PARTS["transformer"]}


def shapes(config):
    return needed_tensors(Component(name="transformer", class_name="", config=config, tensors={}))


def write(folder, *, prefix="", config=None, extra=(), name="qwen_image_edit.safetensors"):
    """A transformer's folder with one file of zeros."""
    (folder / "transformer").mkdir()
    tensors = {prefix + key: np.zeros(shape, np.float16) for key, shape in shapes(config or CONFIG).items()}
    tensors |= {prefix + key: np.zeros(0, np.float16) for key in extra}
    save_file(tensors, folder / "transformer" / name)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
def test_keys_are_the_published_names_behind_a_prefix(tmp_path, prefix):
    """With any of the prefixes met, or none, every tensor has its published name, and its key to read it by."""
    write(tmp_path, prefix=prefix)
    tensors = read_component(tmp_path, "transformer", INDEX).tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes(CONFIG)
    assert tensors["img_in.weight"].key == f"{prefix}img_in.weight"


@pytest.mark.parametrize("change", [{}, {"num_layers": 1}, {"num_attention_heads": 2}, {"joint_attention_dim": 8}])
def test_without_a_config_the_shapes_tell(tmp_path, change):
    """Layers, heads, widths and channels are worked out, and so worked out need the tensors that are there."""
    config = {**CONFIG, **change}
    write(tmp_path, config=config)
    made = read_component(tmp_path, "transformer", INDEX).config
    assert {name: made[name] for name in config if name != "_class_name"} == {
        name: value for name, value in config.items() if name != "_class_name"
    }
    assert made["zero_cond_t"] is False


def test_comfyuis_marker_tells_2511_from_2509(tmp_path):
    """What no shape tells, its marker does, and it is no weight."""
    write(tmp_path, extra=[REFERENCES_AT_ZERO], prefix="model.diffusion_model.")
    component = read_component(tmp_path, "transformer", INDEX)
    assert component.config["zero_cond_t"] is True
    assert component.tensors.keys() == shapes(CONFIG).keys()


def test_a_config_that_is_there_is_what_counts(tmp_path):
    """It is read, not worked out, whatever the file is called."""
    write(tmp_path)
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({**CONFIG, "zero_cond_t": True}))
    assert read_component(tmp_path, "transformer", INDEX).config == {**CONFIG, "zero_cond_t": True}


def test_a_config_that_contradicts_the_marker_is_refused(tmp_path):
    """A 2511 under a 2509's config would run, and make other pictures."""
    write(tmp_path, extra=[REFERENCES_AT_ZERO])
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(BadCheckpoint, match=r"config\.json: zero_cond_t is not set"):
        read_component(tmp_path, "transformer", INDEX)


def test_other_heads_need_a_config(tmp_path):
    """How rotations are split over a head of another size is not to be known from shapes."""
    write(tmp_path, config={**CONFIG, "attention_head_dim": 32, "num_attention_heads": 2})
    with pytest.raises(BadCheckpoint, match=r"config\.json is missing, .* heads of 128; these are of 32"):
        read_component(tmp_path, "transformer", INDEX)


def test_another_models_file_is_told_as_such(tmp_path):
    """The error names a tensor that every Qwen-Image transformer has."""
    (tmp_path / "transformer").mkdir()
    save_file({"double_blocks.0.img_attn.qkv.weight": np.zeros(1)}, tmp_path / "transformer" / "flux.safetensors")
    with pytest.raises(BadCheckpoint, match=r"flux\.safetensors is no Qwen-Image transformer: img_in\.weight"):
        read_component(tmp_path, "transformer", INDEX)


def test_two_keys_for_one_tensor_are_refused(tmp_path):
    """With and without prefix side by side, neither is chosen."""
    write(tmp_path, extra=["diffusion_model.img_in.weight"])
    with pytest.raises(BadCheckpoint, match="names of the same tensor"):
        read_component(tmp_path, "transformer", INDEX)


def test_shards_without_their_config_are_a_broken_download(tiny_checkpoint, tmp_path):
    """A published checkpoint has a config.json, which is not made up for it."""
    (tmp_path / "transformer").mkdir()
    for path in (tiny_checkpoint / "transformer").iterdir():
        if path.name != "config.json":
            (tmp_path / "transformer" / path.name).symlink_to(path)
    with pytest.raises(BadCheckpoint, match=r"transformer/config\.json is missing$"):
        read_component(tmp_path, "transformer", INDEX)
