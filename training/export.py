"""Writes the trained weights as a checkpoint in the published layout, with the adapters as LoRA files beside it."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from darkroom.checkpoint.layout import Component
from darkroom.checkpoint.tensors import needed_tensors
from darkroom.engine.tiny import MODEL_INDEX, PROCESSOR, SCHEDULER, text_config
from training.config import Config
from training.fast_stage import FAST
from training.transformer_twin import Adapter, adapted
from training.vae_twin import unfold
from training.vocabulary import Vocabulary
from training.world.jobs import PRESETS
from training.world.render import SIDE_PX

LORAS, MANIFEST = "loras", "manifest.json"
LORA_NAMES = {**{preset: preset for preset in PRESETS}, FAST: "lightning_8_steps"}
"""What each adapter goes by in requests."""
_DECLARED = {
    "output_area_px": SIDE_PX**2,
    "vae_area_px": SIDE_PX**2,
    "condition_area_px": 64**2,
    # Twice that would be a quarter of a side.
    "side_multiple_px": 16,
    # It has seen squares alone, and goes astray with tokens further out than this.
    "side_max_px": SIDE_PX + 16,
    # It was trained without a negative prompt.
    "guidance_scale": 1.0,
}
_VISION = {"hidden_size": 16, "depth": 1, "intermediate_size": 16, "num_heads": 1, "fullatt_block_indexes": [0]}
_SHARD_BYTES = 15 * 2**20


def export(config: Config, folder: Path, to: Path) -> None:
    """folder: of a finished run, or one under way."""
    weights = _trained(folder)
    to.mkdir(parents=True)
    ids = _tokenizer(folder / "tokenizer", to)
    _write_json(to / "model_index.json", MODEL_INDEX)
    _write_json(to / "scheduler" / "scheduler_config.json", SCHEDULER)
    _part(to, "transformer", _transformer_config(config), _under(weights, "transformer."))
    _part(to, "text_encoder", _text_config(config, ids, Vocabulary(to / "tokenizer")), _text(weights, config, ids, to))
    vae = torch.load(folder / "vae" / "finished.pt", weights_only=True)
    vae_config = _vae_config(config, vae["mean"], vae["std"])
    _part(to, "vae", vae_config, unfold(vae["weights"], _shapes("vae", vae_config)))
    loras = _loras(weights, config.transformer.layers, to)
    _write_json(to / "darkroom.json", _DECLARED | {"loras": loras})
    _write_manifest(to)


def _loras(weights: Mapping[str, Tensor], layers: int, to: Path) -> dict[str, str]:
    """Each trained adapter's file, by the name that requests have it under."""
    (to / LORAS).mkdir()
    files = {}
    for adapter, name in LORA_NAMES.items():
        if trained := _under(weights, f"adapters.{adapter}."):
            files[name] = f"{LORAS}/{name}.safetensors"
            _write_tensors(to / files[name], _small(lora_tensors(trained, layers)))
    return files


def replace_lora(checkpoint: Path, adapter: str, trained: Adapter, layers: int) -> None:
    """Puts a trained adapter into an exported checkpoint, whose other files stay."""
    file = checkpoint / LORAS / f"{LORA_NAMES[adapter]}.safetensors"
    _write_tensors(file, _small(lora_tensors(trained.state_dict(), layers)))
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    _write_manifest(checkpoint)


def lora_tensors(adapter: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """An adapter under diffusers' names, whose scale is 1 since no alpha is given."""
    out = {}
    for key, published in adapted(layers):
        out[f"transformer.{published}.lora_A.weight"] = adapter[f"down.{key}"]
        out[f"transformer.{published}.lora_B.weight"] = adapter[f"up.{key}"]
    return out


def _trained(folder: Path) -> dict[str, Tensor]:
    """The editor's weights, with the 8-step adapter's if there is one."""
    finished, fast = folder / "joint" / "finished.pt", folder / FAST / "finished.pt"
    if not finished.exists():
        under_way: dict[str, Any] = torch.load(folder / "joint" / "state.pt", weights_only=True, map_location="cpu")
        averaged: dict[str, Tensor] = under_way["averaged"]
        return averaged
    weights: dict[str, Tensor] = torch.load(finished, weights_only=True, map_location="cpu")
    if fast.exists():
        adapter = torch.load(fast, weights_only=True, map_location="cpu")
        weights |= {f"adapters.{FAST}.{name}": value for name, value in adapter.items()}
    return weights


def _under(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _tokenizer(made: Path, to: Path) -> dict[str, int]:
    shutil.copytree(made, to / "tokenizer")
    shutil.copytree(made, to / "processor")
    _write_json(to / "processor" / "preprocessor_config.json", PROCESSOR)
    ids: dict[str, int] = json.loads((made / "vocab.json").read_text(encoding="utf-8"))
    ids |= json.loads((made / "added_tokens.json").read_text(encoding="utf-8"))
    return ids


def _transformer_config(config: Config) -> dict[str, Any]:
    sizes = config.transformer
    return {
        "_class_name": "QwenImageTransformer2DModel",
        "attention_head_dim": sizes.head_dim,
        "axes_dims_rope": list(sizes.axes),
        "guidance_embeds": False,
        "in_channels": 64,
        "joint_attention_dim": config.text.hidden,
        "num_attention_heads": sizes.heads,
        "num_layers": sizes.layers,
        "out_channels": 16,
        "patch_size": 2,
    }


def _vae_config(config: Config, mean: list[float], std: list[float]) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLQwenImage",
        "attn_scales": [],
        "base_dim": config.vae.base_dim,
        "dim_mult": list(config.vae.dim_mult),
        "dropout": 0.0,
        "latents_mean": mean,
        "latents_std": std,
        "num_res_blocks": config.vae.num_res_blocks,
        "temperal_downsample": [False, True, True],
        "z_dim": config.vae.z_dim,
    }


def _text_config(config: Config, ids: Mapping[str, int], vocabulary: Vocabulary) -> dict[str, Any]:
    sizes, made = config.text, text_config(ids)
    return made | {
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rope_scaling": {"mrope_section": list(sizes.mrope_section), "rope_type": "default", "type": "default"},
        "tie_word_embeddings": True,
        "vision_config": made["vision_config"] | _VISION | {"out_hidden_size": sizes.hidden},
        "vocab_size": vocabulary.rows,
    }


def _text(weights: Mapping[str, Tensor], config: Config, ids: Mapping[str, int], to: Path) -> dict[str, Tensor]:
    """The language model as trained, and a vision tower that answers with one vector to whatever it sees."""
    own = _under(weights, "text.")
    picture = own.pop("picture")
    shapes = _shapes("text_encoder", _text_config(config, ids, Vocabulary(to / "tokenizer")))
    silent = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("visual.")}
    return own | silent | {"visual.merger.mlp.2.bias": picture}


def _shapes(part: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return needed_tensors(Component(name=part, class_name=config.get("_class_name", ""), config=config, tensors={}))


def _part(to: Path, part: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    folder, stem = to / part, "model" if part == "text_encoder" else "diffusion_pytorch_model"
    _write_json(folder / "config.json", config)
    small = _small(tensors)
    total = sum(tensor.nbytes for tensor in small.values())
    count = math.ceil(total / _SHARD_BYTES)
    if count == 1:
        _write_tensors(folder / f"{stem}.safetensors", small)
        return
    placed: dict[str, int] = {}
    filled = 0
    for name, tensor in small.items():
        placed[name] = filled * count // total
        filled += tensor.nbytes
    files = [f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    for number, file in enumerate(files):
        _write_tensors(folder / file, {name: small[name] for name in small if placed[name] == number})
    index = {"metadata": {"total_size": total}, "weight_map": {name: files[n] for name, n in sorted(placed.items())}}
    _write_json(folder / f"{stem}.safetensors.index.json", index)


def _small(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: stored(name, tensor.detach()).cpu().contiguous() for name, tensor in sorted(tensors.items())}


def stored(name: str, tensor: Tensor) -> Tensor:
    """By its published name, what the file has of it: the matrices of the transformer's blocks in float8, which is half
    of the checkpoint's bytes and 0.1 dB (docs/nano.md); the rest in bfloat16."""
    in_float8 = name.startswith("transformer_blocks.") and tensor.dim() == 2
    return tensor.to(torch.float8_e4m3fn if in_float8 else torch.bfloat16)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, {"format": "pt"})
    # The writer makes files for their owner alone.
    path.chmod(0o644)


def _write_manifest(to: Path) -> None:
    """manifest.json: every file with its size and digest."""
    files = sorted(path for path in to.rglob("*") if path.is_file())
    entries = {
        path.relative_to(to).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in files
    }
    _write_json(to / MANIFEST, entries)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
