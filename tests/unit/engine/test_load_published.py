"""The published checkpoints without their weights: the models at full size, on the meta device."""

import json

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from darkroom.checkpoint.layout import PARTS, Component, published_name
from darkroom.checkpoint.published import PUBLISHED, TEXT_ENCODER, TRANSFORMER, VAE
from darkroom.checkpoint.tensors import UNUSED, needed_tensors, unused_tensors
from darkroom.checkpoint.weights import StoredTensor
from darkroom.engine import load, text
from darkroom.engine.load import WithoutMemory, fill
from darkroom.engine.schedule import ScheduleConfig, make_schedule
from darkroom.engine.text import IMAGE_TOKEN, _load_tokenizer
from darkroom.engine.tiny_tokenizer import SPECIAL, make_tokenizer
from darkroom.engine.transformer import FUSED, Transformer, TransformerConfig
from darkroom.engine.vae_config import VaeConfig
from darkroom.engine.vae_model import VaeModel

META = torch.device("meta")
MODELS = {name.rpartition("-")[2]: configs for name, configs in PUBLISHED.items()}
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
SPECIAL_TOKENS = dict(enumerate(SPECIAL, start=151643))


def reference(part, config):
    """The reference's tensors of a part by their published names, without memory, in bfloat16."""
    with META:
        model = {
            "transformer": lambda: QwenImageTransformer2DModel.from_config(dict(config)),
            "text_encoder": lambda: Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(dict(config))),
            "vae": lambda: AutoencoderKLQwenImage.from_config(dict(config)),
        }[part]()
    return {published_name(name): value for name, value in model.to(torch.bfloat16).state_dict().items()}


def ours(part, config):
    """The engine's module of a part, with how its parameters come by their published names."""
    with WithoutMemory():
        if part == "transformer":
            return Transformer(TransformerConfig.read(config)), {"fused": FUSED}
        if part == "text_encoder":
            return Qwen2_5_VLModel(Qwen2_5_VLConfig.from_dict(dict(config))), {"published": text.published_name}
        return VaeModel(VaeConfig.read(config)), {}


def taken_apart(module, options):
    """A module's parameters by their published names, fused ones as the rows they are made of."""
    parts = {}
    for name, place in load._places(module, options.get("fused", {})):
        value = module.get_parameter(place.parameter)
        start = place.start or 0
        parts[options.get("published", str)(name)] = value[start : start + place.shape[0]] if place.shape else value
    return parts


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", PARTS)
def test_every_tensor_of_the_published_model_finds_its_place(model, part, tmp_path, monkeypatch):
    """Every name, shape and dtype of the reference's classes is that of the engine's modules once they are filled, save
    the language model's head, and what is worked out from the config alone says the same."""
    config = MODELS[model][part]
    theirs = reference(part, config)
    stored = {
        name: StoredTensor(key=name, shape=tuple(value.shape), dtype="BF16", file=tmp_path)
        for name, value in theirs.items()
    }
    component = Component(name=part, class_name=PARTS[part], config=config, tensors=stored)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    assert {**needed_tensors(component), **unused_tensors(component)} == shapes
    monkeypatch.setattr(load, "_read", lambda wanted, _: ((name, theirs[name]) for name in wanted))
    module, options = ours(part, config)
    fill(module, component, device=META, dtype=torch.bfloat16, **options)
    assert {name: (tuple(value.shape), value.dtype) for name, value in taken_apart(module, options).items()} == {
        name: (shape, torch.bfloat16) for name, shape in shapes.items() if name not in UNUSED
    }


def test_the_two_models_differ_in_one_entry():
    """2511 has the tensors of 2509, and sees its references at timestep 0."""
    older, newer = MODELS["2509"], MODELS["2511"]
    assert {name: value for name, value in newer["transformer"].items() if name != "zero_cond_t"} == TRANSFORMER
    assert (older["text_encoder"], older["vae"]) == (newer["text_encoder"], newer["vae"]) == (TEXT_ENCODER, VAE)
    assert not TransformerConfig.read(older["transformer"]).zero_cond_t
    assert TransformerConfig.read(newer["transformer"]).zero_cond_t


def test_the_older_text_config_is_read_for_what_it_says():
    """What the published config.json says flat, in its older form, reaches the model that is built."""
    config = Qwen2_5_VLConfig.from_dict(dict(TEXT_ENCODER))
    language, vision = config.text_config, config.vision_config
    assert language.rope_parameters["mrope_section"] == [16, 24, 24]
    assert language.rope_parameters["rope_theta"] == 1e6
    assert (language.num_key_value_heads, language.rms_norm_eps) == (4, 1e-6)
    assert (vision.hidden_size, vision.fullatt_block_indexes, vision.window_size) == (1280, [7, 15, 23, 31], 112)
    assert (config.image_token_id, config.tie_word_embeddings) == (151655, False)


@pytest.mark.parametrize("steps", [4, 8, 40])
def test_the_published_scheduler_gives_the_references_sigmas(steps):
    """At 1024², for the steps of Lightning and of the full model, the last of which leaves 0.02 of noise."""
    tokens = (1024 // 16) ** 2
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(SCHEDULER)
    config = ScheduleConfig.read(SCHEDULER)
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], mu=config.mu(tokens))
    made = make_schedule(config, steps=steps, image_tokens=tokens)
    torch.testing.assert_close(torch.tensor(made.sigmas), scheduler.sigmas)
    torch.testing.assert_close(torch.tensor(made.timesteps), scheduler.timesteps)
    assert made.sigmas[-2] == pytest.approx(0.02, abs=1e-6)


def test_tokenizer_files_in_the_published_form_give_the_published_ids(tmp_path):
    """Special tokens come after a vocabulary of 151,643, where tokenizer_config.json puts them, and are one token each.

    The vocabulary itself is not published with Darkroom: its letters stand first, placeholders fill it up.
    """
    make_tokenizer(tmp_path / "tiny")
    tiny = json.loads((tmp_path / "tiny" / "vocab.json").read_text(encoding="utf-8"))
    words = [word for word in sorted(tiny, key=tiny.get) if word not in SPECIAL_TOKENS.values()]
    words += [f"placeholder{number}" for number in range(151643 - len(words))]
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_bytes((tmp_path / "tiny" / "merges.txt").read_bytes())
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": token, **plain} for number, token in SPECIAL_TOKENS.items()},
        "eos_token": "<|im_end|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = _load_tokenizer(folder)
    assert {number: tokenizer.convert_ids_to_tokens(number) for number in SPECIAL_TOKENS} == SPECIAL_TOKENS
    ids = {name: number for name, number in TEXT_ENCODER.items() if name.endswith("_token_id")}
    assert {name: SPECIAL_TOKENS[number] for name, number in ids.items()} == {
        "bos_token_id": "<|endoftext|>",
        "eos_token_id": "<|im_end|>",
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": "<|video_pad|>",
        "vision_end_token_id": "<|vision_end|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_token_id": "<|vision_pad|>",
    }
    assert tokenizer(f"a{IMAGE_TOKEN}b", add_special_tokens=False)["input_ids"][1] == TEXT_ENCODER["image_token_id"]
