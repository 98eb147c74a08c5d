import pytest

from darkroom.checkpoint.layout import Component, read_layout
from darkroom.checkpoint.tensors import UNUSED, needed_tensors
from darkroom.errors import BadCheckpoint

TRANSFORMER = {
    "attention_head_dim": 128,
    "axes_dims_rope": [16, 56, 56],
    "guidance_embeds": False,
    "in_channels": 64,
    "joint_attention_dim": 3584,
    "num_attention_heads": 24,
    "num_layers": 60,
    "out_channels": 16,
    "patch_size": 2,
}
TEXT_ENCODER = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "in_channels": 3,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
VAE = {
    "attn_scales": [],
    "base_dim": 96,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "z_dim": 16,
}
HEAD = 152064 * 3584


def component(name, config):
    return Component(name=name, class_name=name, config=config, tensors={})


@pytest.mark.parametrize(
    ("name", "config", "tensors", "parameters"),
    [
        ("transformer", TRANSFORMER, 1_933, 20_430_401_088),
        ("text_encoder", TEXT_ENCODER, 729 - len(UNUSED), 8_292_166_656 - HEAD),
        ("vae", VAE, 194, 126_892_531),
    ],
)
def test_the_published_configs_give_the_published_counts(name, config, tensors, parameters):
    """Tensors and parameters of Qwen-Image-Edit-2509, whose text encoder's head is not needed."""
    needed = needed_tensors(component(name, config))
    assert len(needed) == tensors
    total = 0
    for shape in needed.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    assert total == parameters


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "vae"])
def test_what_is_needed_is_what_the_reference_classes_have(tiny_checkpoint, name):
    """Names and shapes worked out agree with the tensors of a checkpoint made by the reference's own classes."""
    part = getattr(read_layout(tiny_checkpoint), name)
    stored = {key: tensor.shape for key, tensor in part.tensors.items() if key not in UNUSED}
    assert needed_tensors(part) == stored


def test_a_nested_text_config_means_the_same():
    """What transformers 5 saves has the language model's fields in text_config."""
    text = {key: value for key, value in TEXT_ENCODER.items() if key != "vision_config"}
    nested = {"text_config": text, "vision_config": TEXT_ENCODER["vision_config"]}
    assert needed_tensors(component("text_encoder", nested)) == needed_tensors(component("text_encoder", TEXT_ENCODER))


@pytest.mark.parametrize(
    ("name", "config", "entry"),
    [("transformer", TRANSFORMER, "num_layers"), ("text_encoder", TEXT_ENCODER, "hidden_size"), ("vae", VAE, "z_dim")],
)
def test_a_config_that_lacks_an_entry_is_refused_by_its_name(name, config, entry):
    """The error names the entry."""
    with pytest.raises(BadCheckpoint, match=rf"{name}/config\.json: {entry} is missing"):
        needed_tensors(component(name, {key: value for key, value in config.items() if key != entry}))


def test_a_config_of_another_form_is_refused():
    """Wrong types are an error of the checkpoint, not of the program."""
    with pytest.raises(BadCheckpoint, match="does not describe"):
        needed_tensors(component("vae", {**VAE, "dim_mult": 4}))


def test_a_vae_with_attention_on_the_way_is_refused():
    """The published VAE has none, and one that has is not taken for it."""
    with pytest.raises(BadCheckpoint, match="attn_scales"):
        needed_tensors(component("vae", {**VAE, "attn_scales": [0.5]}))
