"""The published checkpoints' configs, for what is to be known of them before any of their files is here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

TRANSFORMER: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "QwenImageTransformer2DModel",
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
)
TEXT_ENCODER: Mapping[str, Any] = MappingProxyType(
    {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 3584,
        "image_token_id": 151655,
        "initializer_range": 0.02,
        "intermediate_size": 18944,
        "max_position_embeddings": 128000,
        "max_window_layers": 28,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"},
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "video_token_id": 151656,
        "vision_config": {
            "depth": 32,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "hidden_act": "silu",
            "hidden_size": 1280,
            "in_chans": 3,
            "intermediate_size": 3420,
            "model_type": "qwen2_5_vl",
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
        "vision_token_id": 151654,
        "vocab_size": 152064,
    }
)
VAE: Mapping[str, Any] = MappingProxyType(
    {
        "_class_name": "AutoencoderKLQwenImage",
        "attn_scales": [],
        "base_dim": 96,
        "dim_mult": [1, 2, 4, 4],
        "dropout": 0.0,
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        "z_dim": 16,
    }
)

Configs = Mapping[str, Mapping[str, Any]]
"""By part."""

PUBLISHED: Mapping[str, Configs] = MappingProxyType(
    {
        "Qwen/Qwen-Image-Edit-2509": {"transformer": TRANSFORMER, "text_encoder": TEXT_ENCODER, "vae": VAE},
        "Qwen/Qwen-Image-Edit-2511": {
            "transformer": {**TRANSFORMER, "zero_cond_t": True},
            "text_encoder": TEXT_ENCODER,
            "vae": VAE,
        },
    }
)
"""Configs by Hugging Face id. Their weights are bfloat16."""
