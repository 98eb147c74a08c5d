"""A tiny checkpoint of random weights in the published layout: `python -m darkroom.engine.tiny DIR [--seed N]`.

Its pictures mean nothing, but every code path of the real model runs on it in a fraction of a second. The weights are
scaled so that every term of the model moves the picture, which is what makes comparing pictures a proof.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from darkroom.checkpoint.layout import PARTS, Component
from darkroom.checkpoint.tensors import needed_tensors, unused_tensors
from darkroom.engine.tiny_tokenizer import make_tokenizer
from darkroom.errors import BadSetting, SetupError

WORKING_SIZES = {"output_area_px": 192 * 192, "vae_area_px": 160 * 160, "condition_area_px": 128 * 128}

TRANSFORMER: dict[str, Any] = {
    "_class_name": "QwenImageTransformer2DModel",
    "attention_head_dim": 32,
    "axes_dims_rope": [8, 12, 12],
    "guidance_embeds": False,
    "in_channels": 64,
    "joint_attention_dim": 64,
    "num_attention_heads": 2,
    "num_layers": 3,
    "out_channels": 16,
    "patch_size": 2,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLQwenImage",
    "attn_scales": [],
    "base_dim": 8,
    "dim_mult": [1, 2, 4, 4],
    "dropout": 0.0,
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "z_dim": 16,
}
SCHEDULER: dict[str, Any] = {
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
PROCESSOR: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "patch_size": 14,
    "processor_class": "Qwen2VLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "temporal_patch_size": 2,
}
MODEL_INDEX: dict[str, Any] = {
    "_class_name": "QwenImageEditPlusPipeline",
    "_diffusers_version": "0.36.0.dev0",
    "processor": ["transformers", "Qwen2VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


def make_tiny(folder: Path, seed: int = 0) -> None:
    """Write it into `folder`, which must be absent or empty and is there only once it is whole. Same seed, same bytes.

    Raises `BadSetting` if there is something in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadSetting(f"{folder} is not empty; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_checkpoint(building, Generator().manual_seed(seed))
        building.chmod(0o755)
        building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _write_checkpoint(folder: Path, generator: Generator) -> None:
    ids = make_tokenizer(folder / "tokenizer")
    shutil.copytree(folder / "tokenizer", folder / "processor")
    _write_json(folder / "processor" / "preprocessor_config.json", PROCESSOR)
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(folder / "darkroom.json", WORKING_SIZES)
    text = text_config(ids)
    _write_json(folder / "transformer" / "config.json", TRANSFORMER)
    _write_shards(folder / "transformer", "diffusion_pytorch_model", _transformer_weights(generator))
    _write_json(folder / "text_encoder" / "config.json", text)
    _write_shards(folder / "text_encoder", "model", _text_weights(text, generator))
    _write_json(folder / "vae" / "config.json", VAE)
    _write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", _vae_weights(generator))
    _write_json(folder / "model_index.json", MODEL_INDEX)


def text_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """config.json as it was written before transformers 5: the language model's fields lie flat beside the rest."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "image_token_id": ids["<|image_pad|>"],
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "max_position_embeddings": 128000,
        "max_window_layers": 28,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "depth": 3,
            "fullatt_block_indexes": [1],
            "hidden_act": "silu",
            "hidden_size": 32,
            "in_channels": 3,
            "in_chans": 3,
            "intermediate_size": 64,
            "model_type": "qwen2_5_vl",
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "vocab_size": math.ceil(len(ids) / 64) * 64,
    }


def _transformer_weights(generator: Generator) -> dict[str, Tensor]:
    # Attention asks sharply, modulation is as large as what it modulates.
    gains = {"norm_q": 1.5, "norm_k": 1.5, "norm_added_q": 1.5, "norm_added_k": 1.5}
    gains |= {"img_mod": 0.8, "txt_mod": 0.8, "norm_out": 0.8, "timestep_embedder": 1.5, "img_mlp": 1.5, "txt_mlp": 1.5}
    return _draw(_shapes("transformer", TRANSFORMER), gains, generator)


def _text_weights(config: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
    gains = {"q_proj": 1.5, "k_proj": 1.5, "qkv": 1.5, "embed_tokens": 8.0, "merger": 1.5, "down_proj": 2.0}
    return _draw(_shapes("text_encoder", config), gains, generator)


def _vae_weights(generator: Generator) -> dict[str, Tensor]:
    gains = {"conv1": 1.5, "conv2": 1.5, "time_conv": 1.0, "encoder.conv_out": 2.0, "decoder.conv_out": 0.5}
    return _draw(_shapes("vae", VAE), gains, generator)


def _shapes(part: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of all that is published, the text encoder's head too, which no edit needs."""
    component = Component(name=part, class_name=PARTS[part], config=config, tensors={})
    return needed_tensors(component) | unused_tensors(component)


def _draw(shapes: Mapping[str, tuple[int, ...]], gains: Mapping[str, float], generator: Generator) -> dict[str, Tensor]:
    """Every weight from a normal distribution: matrices keep the size of what goes through them, times the gain of the
    first fragment found in their name; norms' gains spread around it; biases are small."""

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        normal = torch.randn(shape, generator=generator)
        gain = next((gain for fragment, gain in gains.items() if fragment in name), 1.0)
        if name.endswith(".bias"):
            return 0.2 * normal
        if len(shape) == 1 or name.endswith(".gamma"):
            return gain * (1 + 0.3 * normal)
        return gain * normal / math.sqrt(math.prod(shape[1:]))

    return {name: one(name, shape).to(torch.bfloat16) for name, shape in sorted(shapes.items())}


def _write_shards(folder: Path, stem: str, tensors: Mapping[str, Tensor], shards: int = 2) -> None:
    names = list(tensors)
    placed: dict[str, str] = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        _write_weights(folder / file, {name: tensors[name] for name in part})
        placed |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(
        folder / f"{stem}.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))},
    )


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, {"format": "pt"})
    # The writer makes files for their owner alone.
    path.chmod(0o644)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m darkroom.engine.tiny", description="Make a tiny checkpoint.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; must be absent or empty")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same weights (default: 0)")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    try:
        make_tiny(asked.folder, seed=asked.seed)
    except SetupError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
