"""LoRA files as tests want them: the same change of a tiny transformer under the key scheme of every tool."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from darkroom.engine.tiny import TRANSFORMER
from darkroom.lora.modules import Modules

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""A [rank, in] and B [out, rank] by module."""
File = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata."""

FUSED = {"to_qkv": ("to_q", "to_k", "to_v"), "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj")}
TARGETS = (
    *(f"attn.{name}" for name in (*FUSED["to_qkv"], *FUSED["add_qkv_proj"], "to_out.0", "to_add_out")),
    *(f"{stream}_{name}" for stream in ("img", "txt") for name in ("mlp.net.0.proj", "mlp.net.2", "mod.1")),
)
TOP = ("img_in", "txt_in", "proj_out", "norm_out.linear", "time_text_embed.timestep_embedder.linear_1")


MODULES = Modules.read(TRANSFORMER)


def targets(*, top: bool = True) -> tuple[str, ...]:
    blocks = range(TRANSFORMER["num_layers"])
    return (*(f"transformer_blocks.{block}.{name}" for block in blocks for name in TARGETS), *(TOP if top else ()))


def make_pairs(
    names: Iterable[str] = targets(),
    *,
    ranks: Iterable[int] = (4,),
    seed: int = 0,
    size: float = 0.2,
    dtype: torch.dtype = torch.float32,
) -> Pairs:
    """Ranks in turn; each product of about `size` of a weight's own scale. Modules of one QKV share their A."""
    generator = torch.Generator().manual_seed(seed)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    ranks = tuple(ranks)
    for index, name in enumerate(names):
        rows, columns = MODULES.shapes[f"{name}.weight"]
        parent, _, leaf = name.rpartition(".")
        first = next((f"{parent}.{parts[0]}" for parts in FUSED.values() if leaf in parts), name)
        rank = ranks[index % len(ranks)] if first not in pairs else pairs[first][0].shape[0]
        a = pairs[first][0] if first in pairs else torch.randn(rank, columns, generator=generator) / columns**0.5
        b = size * torch.randn(rows, rank, generator=generator) / rank**0.5
        pairs[name] = a.to(dtype), b.to(dtype)
    return pairs


def dotted(prefix: str, down: str, up: str, *, alpha: float | None = None) -> Callable[[Pairs], File]:
    def write(pairs: Pairs) -> File:
        tensors = {}
        for name, (a, b) in pairs.items():
            tensors |= {f"{prefix}{name}.{down}": a, f"{prefix}{name}.{up}": b}
            if alpha is not None:
                tensors[f"{prefix}{name}.alpha"] = torch.tensor(alpha)
        return tensors, {}

    return write


def flat(prefix: str, alpha: float) -> Callable[[Pairs], File]:
    def write(pairs: Pairs) -> File:
        tensors = {}
        for name, (a, b) in pairs.items():
            path = prefix + name.replace(".", "_")
            tensors |= {
                f"{path}.lora_down.weight": a,
                f"{path}.lora_up.weight": b,
                f"{path}.alpha": torch.tensor(alpha),
            }
        return tensors, {"ss_network_alpha": str(alpha), "ss_base_model_version": "qwen_image_edit"}

    return write


def fused(pairs: Pairs) -> File:
    """Queries, keys and values as one matrix."""
    parts = [part for parts in FUSED.values() for part in parts]
    apart = {name: pair for name, pair in pairs.items() if name.rpartition(".")[2] not in parts}
    tensors, metadata = dotted("diffusion_model.", "lora_A.weight", "lora_B.weight")(apart)
    for name, (a, _) in pairs.items():
        parent, _, leaf = name.rpartition(".")
        for whole, (first, *others) in FUSED.items():
            if leaf == first:
                b = torch.cat([pairs[f"{parent}.{part}"][1] for part in (first, *others)])
                path = f"diffusion_model.{parent}.{whole}"
                tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    return tensors, metadata


def noted(alpha: float) -> Callable[[Pairs], File]:
    """As diffusers saves an adapter with its config: no alpha beside the matrices."""

    def write(pairs: Pairs) -> File:
        tensors, _ = dotted("transformer.", "lora_A.weight", "lora_B.weight")(pairs)
        ranks = {name: a.shape[0] for name, (a, _) in pairs.items()}
        note = {"r": next(iter(ranks.values())), "lora_alpha": alpha, "rank_pattern": ranks, "target_modules": [*ranks]}
        return tensors, {"lora_adapter_metadata": json.dumps({f"transformer.{key}": note[key] for key in note})}

    return write


@dataclass(frozen=True, kw_only=True)
class Layout:
    """alpha: as written, None where nothing is scaled. named: as a report names it."""

    write: Callable[[Pairs], File]
    named: str
    alpha: float | None = None


LAYOUTS = {
    "diffusers": Layout(write=dotted("transformer.", "lora_A.weight", "lora_B.weight"), named="diffusers"),
    "diffusers with a note": Layout(write=noted(6.0), named="diffusers", alpha=6.0),
    "PEFT": Layout(write=dotted("base_model.model.", "lora_A.weight", "lora_B.weight"), named="PEFT"),
    "ComfyUI": Layout(write=dotted("diffusion_model.", "lora_A.weight", "lora_B.weight"), named="ComfyUI"),
    "ComfyUI with alpha": Layout(
        write=dotted("model.diffusion_model.", "lora_A.weight", "lora_B.weight", alpha=2.0), named="ComfyUI", alpha=2.0
    ),
    "ComfyUI, fused": Layout(write=fused, named="ComfyUI"),
    "kohya": Layout(write=flat("lora_unet_", 3.0), named="kohya", alpha=3.0),
    "LyCORIS": Layout(write=flat("lycoris_", 1.0), named="LyCORIS", alpha=1.0),
    "DiffSynth": Layout(write=dotted("", "lora_A.default.weight", "lora_B.default.weight"), named="bare"),
    "lightx2v": Layout(write=dotted("", "lora_down.weight", "lora_up.weight", alpha=8.0), named="bare", alpha=8.0),
    "bare": Layout(write=dotted("", "lora_A.weight", "lora_B.weight"), named="bare"),
    "old diffusers": Layout(write=dotted("transformer.", "lora.down.weight", "lora.up.weight"), named="diffusers"),
}


def save(path: Path, file: File) -> Path:
    tensors, metadata = file
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata or None)
    return path
