"""Which tensors each part must hold, worked out from its config.json alone: published names, shapes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.checkpoint.layout import Component
from darkroom.errors import BadCheckpoint

Tensors = Iterator[tuple[str, tuple[int, ...]]]

UNUSED = frozenset({"lm_head.weight"})
"""Published with the text encoder, of which only hidden states are read."""

_TIME_CHANNELS = 256


def needed_tensors(component: Component) -> dict[str, tuple[int, ...]]:
    """Raises `BadCheckpoint` that names the entry its config.json lacks."""
    work_out = {"transformer": _transformer, "text_encoder": _text_encoder, "vae": _vae}[component.name]
    try:
        return dict(work_out(component.config))
    except KeyError as error:
        raise BadCheckpoint(f"{component.name}/config.json: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{component.name}/config.json does not describe a {component.class_name}") from error


def unused_tensors(component: Component) -> dict[str, tuple[int, ...]]:
    """Those of `UNUSED` that belong to this config: none if the head is tied to the embedding."""
    if component.name != "text_encoder" or component.config.get("tie_word_embeddings"):
        return {}
    return {"lm_head.weight": needed_tensors(component)["model.embed_tokens.weight"]}


def parameters_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Tensors:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _transformer(config: Mapping[str, Any]) -> Tensors:
    head, joint, channels = config["attention_head_dim"], config["joint_attention_dim"], config["in_channels"]
    dim = config["num_attention_heads"] * head
    yield from _linear("time_text_embed.timestep_embedder.linear_1", _TIME_CHANNELS, dim)
    yield from _linear("time_text_embed.timestep_embedder.linear_2", dim, dim)
    yield "txt_norm.weight", (joint,)
    yield from _linear("img_in", channels, dim)
    yield from _linear("txt_in", joint, dim)
    for index in range(config["num_layers"]):
        block = f"transformer_blocks.{index}"
        for stream in ("img", "txt"):
            yield from _linear(f"{block}.{stream}_mod.1", dim, 6 * dim)
            yield from _linear(f"{block}.{stream}_mlp.net.0.proj", dim, 4 * dim)
            yield from _linear(f"{block}.{stream}_mlp.net.2", 4 * dim, dim)
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
            yield from _linear(f"{block}.attn.{name}", dim, dim)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            yield f"{block}.attn.{name}.weight", (head,)
    yield from _linear("norm_out.linear", dim, 2 * dim)
    yield from _linear("proj_out", dim, config["patch_size"] ** 2 * (config.get("out_channels") or channels))


def _text_encoder(config: Mapping[str, Any]) -> Tensors:
    yield from _vision(config["vision_config"])
    text = config.get("text_config") or config
    hidden, heads, wide = text["hidden_size"], text["num_attention_heads"], text["intermediate_size"]
    narrow = hidden // heads * (text.get("num_key_value_heads") or heads)
    yield "model.embed_tokens.weight", (text["vocab_size"], hidden)
    for index in range(text["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        yield from _linear(f"{layer}.self_attn.q_proj", hidden, hidden)
        yield from _linear(f"{layer}.self_attn.k_proj", hidden, narrow)
        yield from _linear(f"{layer}.self_attn.v_proj", hidden, narrow)
        yield from _linear(f"{layer}.self_attn.o_proj", hidden, hidden, bias=False)
        yield from _linear(f"{layer}.mlp.gate_proj", hidden, wide, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", hidden, wide, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", wide, hidden, bias=False)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def _vision(config: Mapping[str, Any]) -> Tensors:
    hidden, wide, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    merged = hidden * config["spatial_merge_size"] ** 2
    frames, channels = config["temporal_patch_size"], config.get("in_channels", 3)
    yield "visual.patch_embed.proj.weight", (hidden, channels, frames, patch, patch)
    for index in range(config["depth"]):
        block = f"visual.blocks.{index}"
        yield f"{block}.norm1.weight", (hidden,)
        yield f"{block}.norm2.weight", (hidden,)
        yield from _linear(f"{block}.attn.qkv", hidden, 3 * hidden)
        yield from _linear(f"{block}.attn.proj", hidden, hidden)
        yield from _linear(f"{block}.mlp.gate_proj", hidden, wide)
        yield from _linear(f"{block}.mlp.up_proj", hidden, wide)
        yield from _linear(f"{block}.mlp.down_proj", wide, hidden)
    yield "visual.merger.ln_q.weight", (hidden,)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", merged, config["out_hidden_size"])


def _vae(config: Mapping[str, Any]) -> Tensors:
    base, latent, blocks = config["base_dim"], config["z_dim"], config["num_res_blocks"]
    in_time, picture = config["temperal_downsample"], config.get("input_channels", 3)
    widths = [base * factor for factor in config["dim_mult"]]
    if config.get("attn_scales"):
        raise BadCheckpoint("vae/config.json: attn_scales is set, which Darkroom does not run")
    yield from _vae_encoder([base, *widths], blocks, in_time, picture, 2 * latent)
    yield from _conv("quant_conv", 2 * latent, 2 * latent, 1, 1, 1)
    yield from _conv("post_quant_conv", latent, latent, 1, 1, 1)
    yield from _vae_decoder([widths[-1], *reversed(widths)], blocks, list(reversed(in_time)), picture, latent)


def _vae_encoder(widths: list[int], blocks: int, in_time: list[bool], picture: int, latent: int) -> Tensors:
    yield from _conv("encoder.conv_in", picture, widths[0], 3, 3, 3)
    number = 0
    for level, width in enumerate(widths[1:]):
        for block in range(blocks):
            yield from _residual(f"encoder.down_blocks.{number}", width if block else widths[level], width)
            number += 1
        if level < len(widths) - 2:
            yield from _conv(f"encoder.down_blocks.{number}.resample.1", width, width, 3, 3)
            if in_time[level]:
                yield from _conv(f"encoder.down_blocks.{number}.time_conv", width, width, 3, 1, 1)
            number += 1
    yield from _middle("encoder.mid_block", widths[-1])
    yield "encoder.norm_out.gamma", (widths[-1], 1, 1, 1)
    yield from _conv("encoder.conv_out", widths[-1], latent, 3, 3, 3)


def _vae_decoder(widths: list[int], blocks: int, in_time: list[bool], picture: int, latent: int) -> Tensors:
    yield from _conv("decoder.conv_in", latent, widths[0], 3, 3, 3)
    yield from _middle("decoder.mid_block", widths[0])
    for level, width in enumerate(widths[1:]):
        # Upsampling halves the channels that enter the next level.
        entering = widths[level] // 2 if level else widths[0]
        for block in range(blocks + 1):
            yield from _residual(f"decoder.up_blocks.{level}.resnets.{block}", width if block else entering, width)
        if level < len(widths) - 2:
            upsampler = f"decoder.up_blocks.{level}.upsamplers.0"
            yield from _conv(f"{upsampler}.resample.1", width, width // 2, 3, 3)
            if in_time[level]:
                yield from _conv(f"{upsampler}.time_conv", width, 2 * width, 3, 1, 1)
    yield "decoder.norm_out.gamma", (widths[-1], 1, 1, 1)
    yield from _conv("decoder.conv_out", widths[-1], picture, 3, 3, 3)


def _conv(name: str, inputs: int, outputs: int, *kernel: int) -> Tensors:
    yield f"{name}.weight", (outputs, inputs, *kernel)
    yield f"{name}.bias", (outputs,)


def _residual(name: str, inputs: int, outputs: int) -> Tensors:
    yield f"{name}.norm1.gamma", (inputs, 1, 1, 1)
    yield from _conv(f"{name}.conv1", inputs, outputs, 3, 3, 3)
    yield f"{name}.norm2.gamma", (outputs, 1, 1, 1)
    yield from _conv(f"{name}.conv2", outputs, outputs, 3, 3, 3)
    if inputs != outputs:
        yield from _conv(f"{name}.conv_shortcut", inputs, outputs, 1, 1, 1)


def _middle(name: str, width: int) -> Tensors:
    for block in range(2):
        yield from _residual(f"{name}.resnets.{block}", width, width)
    yield f"{name}.attentions.0.norm.gamma", (width, 1, 1)
    yield from _conv(f"{name}.attentions.0.to_qkv", width, 3 * width, 1, 1)
    yield from _conv(f"{name}.attentions.0.proj", width, width, 1, 1)
