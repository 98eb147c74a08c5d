import pytest

from darkroom.checkpoint.layout import Component, read_layout
from darkroom.checkpoint.published import PUBLISHED, TEXT_ENCODER, TRANSFORMER, VAE
from darkroom.checkpoint.tensors import UNUSED, needed_tensors, parameters_of, unused_tensors
from darkroom.errors import BadCheckpoint

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
    assert parameters_of(needed) == parameters


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_files_have_the_published_sizes(model):
    """In bfloat16, the head included: 40.86 GB of transformer, 16.58 GB of text encoder, 0.25 GB of VAE."""
    parts = [component(name, config) for name, config in PUBLISHED[model].items()]
    sizes = [2 * parameters_of({**needed_tensors(part), **unused_tensors(part)}) for part in parts]
    assert sizes == [40_860_802_176, 16_584_333_312, 253_785_062]


def test_a_tied_head_is_no_tensor_of_its_own():
    """Only a text encoder that is published with a head has one."""
    assert unused_tensors(component("text_encoder", TEXT_ENCODER)) == {"lm_head.weight": (152064, 3584)}
    assert unused_tensors(component("text_encoder", {**TEXT_ENCODER, "tie_word_embeddings": True})) == {}
    assert unused_tensors(component("vae", VAE)) == {}


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
