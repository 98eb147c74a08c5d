"""A transformer as ComfyUI keeps it: one file of any name, its keys prefixed, a marker, and no config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.checkpoint.weights import StoredTensor
from darkroom.errors import BadCheckpoint

REFERENCES_AT_ZERO = "__index_timestep_zero__"
"""ComfyUI's marker of a model that sees its references at timestep 0 (`zero_cond_t`), which no weight would tell."""

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")

_HEAD_DIM = 128
_AXES = (16, 56, 56)
_PATCH = 2


def without_prefix(key: str) -> str:
    return next((key.removeprefix(prefix) for prefix in _PREFIXES if key.startswith(prefix)), key)


def make_config(tensors: Mapping[str, StoredTensor], file: Path, *, zero_cond_t: bool) -> dict[str, Any]:
    """What config.json would say, from the shapes; what shapes don't tell, as published.

    Raises `BadCheckpoint` where the file is of another model, or where the rotations can't be known.
    """
    head = "transformer_blocks.0.attn.norm_q.weight"
    for name in ("img_in.weight", "txt_in.weight", "proj_out.weight", head):
        if name not in tensors:
            raise BadCheckpoint(f"{file} is no Qwen-Image transformer: {name} is missing")
    head_dim = tensors[head].shape[0]
    if head_dim != _HEAD_DIM:
        raise BadCheckpoint(
            f"{file.parent / 'config.json'} is missing, and can only be done without for heads of {_HEAD_DIM}; "
            f"these are of {head_dim}"
        )
    blocks = {name.split(".")[1] for name in tensors if name.startswith("transformer_blocks.")}
    width, channels = tensors["img_in.weight"].shape
    return {
        "attention_head_dim": head_dim,
        "axes_dims_rope": list(_AXES),
        "guidance_embeds": False,
        "in_channels": channels,
        "joint_attention_dim": tensors["txt_in.weight"].shape[1],
        "num_attention_heads": width // head_dim,
        "num_layers": len(blocks),
        "out_channels": tensors["proj_out.weight"].shape[0] // _PATCH**2,
        "patch_size": _PATCH,
        "zero_cond_t": zero_cond_t,
    }
