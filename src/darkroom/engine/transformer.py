"""The Qwen-Image MMDiT: two streams, image and text, that meet in joint attention.

Parameters carry the published names, save that the three projections of each stream's attention are one (`FUSED`).
Shapes: B batch, R result tokens, S all image tokens (result, then references), T text tokens, D = heads · head_dim.

A request's constants are computed apart from the steps: `modulation` for all timesteps, `embed_text`, `embed_image` of
the references, and the rotations. `forward` is what is left to do at a step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor, nn

from darkroom.engine.modulation import BlockModulation, Modulation, StepModulation
from darkroom.engine.rope import Rope
from darkroom.errors import BadCheckpoint

EPS = 1e-6
TIME_CHANNELS = 256

FUSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"to_qkv": ("to_q", "to_k", "to_v"), "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj")}
)
"""Modules whose rows are those of several published ones, one below the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    patch_size: int = 2
    in_channels: int = 64
    out_channels: int = 16
    num_layers: int = 60
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 3584
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    zero_cond_t: bool = False

    @property
    def dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "TransformerConfig":
        """From config.json. Raises `BadCheckpoint` where it asks for what this model has not."""
        for name in ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"):
            if config.get(name):
                raise BadCheckpoint(f"transformer/config.json: {name} is set, which Darkroom does not run")
        known = {field.name: config[field.name] for field in fields(cls) if config.get(field.name) is not None}
        if "axes_dims_rope" in known:
            known["axes_dims_rope"] = tuple(known["axes_dims_rope"])
        made = cls(**known)
        if sum(made.axes_dims_rope) != made.attention_head_dim:
            raise BadCheckpoint(
                f"transformer/config.json: axes_dims_rope {list(made.axes_dims_rope)} must add up to "
                f"attention_head_dim {made.attention_head_dim}"
            )
        return made


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.time_text_embed = TimeEmbedding(dim)
        self.txt_norm = nn.RMSNorm(config.joint_attention_dim, eps=EPS)
        self.img_in = nn.Linear(config.in_channels, dim)
        self.txt_in = nn.Linear(config.joint_attention_dim, dim)
        self.transformer_blocks = nn.ModuleList(
            [Block(dim, config.num_attention_heads) for _ in range(config.num_layers)]
        )
        self.norm_out = OutputNorm(dim)
        self.proj_out = nn.Linear(dim, config.patch_size**2 * config.out_channels)

    @property
    def dtype(self) -> torch.dtype:
        return self.img_in.weight.dtype

    @property
    def blocks(self) -> list["Block"]:
        return cast("list[Block]", list(self.transformer_blocks))

    def modulation(self, timesteps: Sequence[float]) -> Modulation:
        """timesteps: of every step, 1000 being pure noise."""
        config, steps = self.config, len(timesteps)
        moments = torch.tensor([*timesteps, 0.0] if config.zero_cond_t else timesteps, device=self.img_in.weight.device)
        embedded = F.silu(self.time_text_embed(moments.to(self.dtype) / 1000))
        image = embedded.new_empty(config.num_layers, 6, len(moments), config.dim)
        text = embedded.new_empty(config.num_layers, 6, steps, config.dim)
        for index, block in enumerate(self.blocks):
            image[index] = _by_part(block.img_mod[1](embedded), 6)
            text[index] = _by_part(block.txt_mod[1](embedded[:steps]), 6)
        for table in (image, text):
            table[:, 1::3] += 1
        out = _by_part(self.norm_out.linear(embedded[:steps]), 2).contiguous()
        out[0] += 1
        return Modulation(image=image, text=text, out=out, references_at_zero=config.zero_cond_t)

    def embed_text(self, prompt: Tensor) -> Tensor:
        """[B, T, joint_attention_dim] → [B, T, D]."""
        embedded: Tensor = self.txt_in(self.txt_norm(prompt))
        return embedded

    def embed_image(self, latents: Tensor) -> Tensor:
        """[B, tokens, in_channels] → [B, tokens, D]."""
        embedded: Tensor = self.img_in(latents)
        return embedded

    def forward(
        self, latents: Tensor, references: Tensor, text: Tensor, modulation: StepModulation, rope: Rope
    ) -> Tensor:
        """The velocity of the result's latents.

        latents: [B, R, in_channels]. references: [B, S - R, D] and text: [B, T, D], embedded. rope: of T + S tokens.
        Returns [B, R, patch² · out_channels].
        """
        result_tokens = latents.shape[1]
        image = torch.cat([self.embed_image(latents), references], dim=1)
        *inner, last = self.blocks
        *inner_modulation, last_modulation = modulation.blocks
        for block, at in zip(inner, inner_modulation, strict=True):
            image, text = block(image, text, at, rope, result_tokens)
        result = last.result(image, text, last_modulation, rope, result_tokens)
        scale, shift = modulation.out
        velocity: Tensor = self.proj_out(_normed(result) * scale + shift)
        return velocity


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.attn = JointAttention(dim, heads)
        self.img_mlp = FeedForward(dim)
        self.txt_mlp = FeedForward(dim)

    def forward(
        self, image: Tensor, text: Tensor, modulation: BlockModulation, rope: Rope, result_tokens: int
    ) -> tuple[Tensor, Tensor]:
        """image: [B, S, D], text: [B, T, D] → the same."""
        mod = _spread(modulation.image, result_tokens, image.shape[1])
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = mod
        txt_shift, txt_scale, txt_gate, txt_shift_mlp, txt_scale_mlp, txt_gate_mlp = modulation.text
        image_update, text_update = self.attn(
            _normed(image) * scale + shift, _normed(text) * txt_scale + txt_shift, rope
        )
        image = image + gate * image_update
        text = text + txt_gate * text_update
        image = image + gate_mlp * self.img_mlp(_normed(image) * scale_mlp + shift_mlp)
        text = text + txt_gate_mlp * self.txt_mlp(_normed(text) * txt_scale_mlp + txt_shift_mlp)
        return image, text

    def result(
        self, image: Tensor, text: Tensor, modulation: BlockModulation, rope: Rope, result_tokens: int
    ) -> Tensor:
        """The result's tokens alone, [B, R, D]: of a last block nothing else is read."""
        shift, scale, *_ = _spread(modulation.image, result_tokens, image.shape[1])
        *_, gate, shift_mlp, scale_mlp, gate_mlp = modulation.image[:, :1]
        txt_shift, txt_scale, *_ = modulation.text
        update = self.attn.result(
            _normed(image) * scale + shift, _normed(text) * txt_scale + txt_shift, rope, result_tokens
        )
        result = image[:, :result_tokens] + gate * update
        finished: Tensor = result + gate_mlp * self.img_mlp(_normed(result) * scale_mlp + shift_mlp)
        return finished


class JointAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.add_qkv_proj = nn.Linear(dim, 3 * dim)
        self.norm_q = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_k = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_added_q = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_added_k = nn.RMSNorm(dim // heads, eps=EPS)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(self, image: Tensor, text: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """image: [B, S, D], text: [B, T, D] → what attention adds to each."""
        image_q, image_k, image_v = self._by_head(self.to_qkv(image), 3)
        text_q, text_k, text_v = self._by_head(self.add_qkv_proj(text), 3)
        mixed = _attend(
            rope.rotate(torch.cat([self.norm_added_q(text_q), self.norm_q(image_q)], dim=1)),
            rope.rotate(torch.cat([self.norm_added_k(text_k), self.norm_k(image_k)], dim=1)),
            torch.cat([text_v, image_v], dim=1),
        )
        text_tokens = text.shape[1]
        return self.to_out[0](mixed[:, text_tokens:]), self.to_add_out(mixed[:, :text_tokens])

    def result(self, image: Tensor, text: Tensor, rope: Rope, result_tokens: int) -> Tensor:
        """What attention adds to the result's tokens alone, [B, R, D]: they ask, all tokens answer."""
        dim, start = image.shape[-1], text.shape[1]
        weight, bias, added = self.to_qkv.weight, self.to_qkv.bias, self.add_qkv_proj
        (query,) = self._by_head(F.linear(image[:, :result_tokens], weight[:dim], bias[:dim]), 1)
        image_k, image_v = self._by_head(F.linear(image, weight[dim:], bias[dim:]), 2)
        text_k, text_v = self._by_head(F.linear(text, added.weight[dim:], added.bias[dim:]), 2)
        mixed = _attend(
            rope.rows(start, start + result_tokens).rotate(self.norm_q(query)),
            rope.rotate(torch.cat([self.norm_added_k(text_k), self.norm_k(image_k)], dim=1)),
            torch.cat([text_v, image_v], dim=1),
        )
        update: Tensor = self.to_out[0](mixed)
        return update

    def _by_head(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, tokens, parts · D] → `parts` of [B, tokens, heads, head_dim]."""
        return torch.unflatten(projected, -1, (parts, self.heads, -1)).unbind(-3)


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Widen(dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.net[2](self.net[0](x))
        return narrowed


class Widen(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class TimeEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(TIME_CHANNELS, dim), "linear_2": nn.Linear(dim, dim)}
        )

    def forward(self, moments: Tensor) -> Tensor:
        """moments: [steps], 1 being pure noise, in the dtype computed in → [steps, D]."""
        half = TIME_CHANNELS // 2
        exponents = torch.arange(half, dtype=torch.float32, device=moments.device) * (-math.log(10000) / half)
        angles = 1000 * (moments.float()[:, None] * exponents.exp())
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(moments.dtype)
        first, second = self.timestep_embedder["linear_1"], self.timestep_embedder["linear_2"]
        embedded: Tensor = second(F.silu(first(waves)))
        return embedded


class OutputNorm(nn.Module):
    """Holds the weights behind `Modulation.out`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)


def _by_part(modulation: Tensor, parts: int) -> Tensor:
    """[timesteps, parts · D] → [parts, timesteps, D]."""
    return torch.unflatten(modulation, -1, (parts, -1)).transpose(0, 1)


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def _spread(rows: Tensor, result_tokens: int, image_tokens: int) -> Tensor:
    """[6, rows, D] → [6, 1 or S, D], to be broadcast over the image tokens."""
    if rows.shape[1] == 1:
        return rows
    result, references = rows.chunk(2, dim=1)
    return torch.cat(
        [result.expand(-1, result_tokens, -1), references.expand(-1, image_tokens - result_tokens, -1)], dim=1
    )


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[B, tokens, heads, head_dim] each → [B, query tokens, D]."""
    mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return mixed.transpose(1, 2).flatten(2)
