"""Which other model a LoRA is for, as well as its keys tell."""

import re
from collections.abc import Iterable
from itertools import islice

_SIGNS = (
    (r"double_blocks\.\d+\.(?:img|txt)_attn_qkv|individual_token_refiner", "HunyuanVideo"),
    (r"double_blocks[._]|single_blocks[._]|single_transformer_blocks[._]", "FLUX"),
    (r"double_stream_blocks[._]", "HiDream"),
    (r"joint_blocks[._]|transformer_blocks[._]\d+[._](?:ff_context|norm1_context)\b", "Stable Diffusion 3"),
    (r"(?:down|up|input|output)_blocks[._]|mid_block[._]|middle_block[._]", "Stable Diffusion (1, 2 or XL)"),
    (r"blocks[._]\d+[._](?:self_attn|cross_attn|ffn)\b|blocks[._]\d+[._](?:self|cross)_attn_", "Wan"),
    (r"transformer_blocks[._]\d+[._](?:attn1|attn2|scale_shift_table)", "LTX-Video or PixArt"),
    (r"layers[._]\d+[._](?:attention|feed_forward|adaLN_modulation)", "Z-Image or Lumina"),
    (r"caption_projection|patch_embed|pos_embed\.", "another diffusion transformer"),
)
_PATTERNS = tuple((re.compile(rf"(?:^|[._]){pattern}"), model) for pattern, model in _SIGNS)

_ENOUGH = 1000
"""Keys looked at."""


def guess_model(keys: Iterable[str]) -> str | None:
    """Of the keys that this model has no modules for; None where they tell nothing."""
    keys = tuple(islice(keys, _ENOUGH))
    return next((model for pattern, model in _PATTERNS if any(pattern.search(key) for key in keys)), None)
