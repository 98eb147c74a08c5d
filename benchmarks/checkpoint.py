"""A checkpoint of random weights that is large enough to compute rather than idle, and small enough for a CPU.

Speed does not depend on the weights' values.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from darkroom.engine import tiny

SIDE_PX = 256
"""Of a square result, and of a square picture as the VAE is given it."""

WORKING_SIZES = {"output_area_px": SIDE_PX**2, "vae_area_px": SIDE_PX**2, "condition_area_px": 112**2}
TRANSFORMER = {
    "attention_head_dim": 64,
    "axes_dims_rope": [16, 24, 24],
    "joint_attention_dim": 256,
    "num_attention_heads": 8,
    "num_layers": 12,
}
VAE = {"base_dim": 32}
TEXT = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "rope_scaling": {"mrope_section": [8, 12, 12], "rope_type": "default", "type": "default"},
    "vocab_size": 1024,  # the head's share of the whole is then what it is in the published text encoder
}
VISION = {
    "depth": 4,
    "fullatt_block_indexes": [1, 3],
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_heads": 4,
    "out_hidden_size": 256,
}


def sized_checkpoint(folder: Path) -> Path:
    """Made in `folder` unless it is there already: 12 layers of width 512 in the transformer."""
    if folder.exists():
        return folder
    text_config = tiny.text_config

    def wider(ids: Mapping[str, int]) -> dict[str, Any]:
        config = text_config(ids)
        return config | TEXT | {"vision_config": config["vision_config"] | VISION}

    with ExitStack() as stack:
        for name, sizes in (("WORKING_SIZES", WORKING_SIZES), ("TRANSFORMER", TRANSFORMER), ("VAE", VAE)):
            stack.enter_context(patch.object(tiny, name, getattr(tiny, name) | sizes))
        stack.enter_context(patch.object(tiny, "text_config", wider))
        tiny.make_tiny(folder)
    return folder
