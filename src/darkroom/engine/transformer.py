"""The Qwen-Image MMDiT: two streams, image and text, that meet in joint attention.

Parameters carry the published names, save that the three projections of each stream's attention are one (`FUSED`).
Shapes: B prompts (one, or two that are told apart), R result tokens, S all image tokens (result, then references),
T text tokens, D = heads · head_dim.

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

from darkroom.engine.kernels import EPS, PLAIN, Kernels, halved
from darkroom.engine.modulation import BlockModulation, Modulation, StepModulation
from darkroom.engine.rope import Rope
from darkroom.errors import BadCheckpoint

TIME_CHANNELS = 256

FUSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"to_qkv": ("to_q", "to_k", "to_v"), "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj")}
)
"""Modules whose rows are those of several published ones, one below the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """How tokens meet in attention: every prompt's with an image stream of its own, all else in one batch.

    text_tokens: of each prompt, whose tokens follow one another. ropes: of each prompt's text, result and references.
    """

    text_tokens: tuple[int, ...]
    ropes: tuple[Rope, ...]
    result_tokens: int


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
    def __init__(self, config: TransformerConfig, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        dim = config.dim
        self.time_text_embed = TimeEmbedding(dim)
        self.txt_norm = nn.RMSNorm(config.joint_attention_dim, eps=EPS)
        self.img_in = nn.Linear(config.in_channels, dim)
        self.txt_in = nn.Linear(config.joint_attention_dim, dim)
        self.transformer_blocks = nn.ModuleList(
            [Block(dim, config.num_attention_heads, kernels) for _ in range(config.num_layers)]
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
            image_layer, text_layer = block.modulation
            image[index] = _by_part(image_layer(embedded), 6)
            text[index] = _by_part(text_layer(embedded[:steps]), 6)
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
        self, latents: Tensor, references: Tensor, text: Tensor, modulation: StepModulation, joint: Joint
    ) -> Tensor:
        """The velocity of the result's latents under each of B prompts.

        latents: [1, R, in_channels]. references: [1, S - R, D] and text: [1, all prompts' tokens, D], embedded.
        Returns [B, R, patch² · out_channels].
        """
        image = torch.cat([self.embed_image(latents), references], dim=1).expand(len(joint.ropes), -1, -1)
        *inner, last = self.blocks
        *inner_modulation, last_modulation = modulation.blocks
        for block, at in zip(inner, inner_modulation, strict=True):
            image, text = block(image, text, at, joint)
        result = last.result(image, text, last_modulation, joint)
        scale, shift = modulation.out
        velocity: Tensor = self.proj_out(self.kernels.modulated(result, scale, shift, joint.result_tokens))
        return velocity


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.attn = JointAttention(dim, heads, kernels)
        self.img_mlp = FeedForward(dim, kernels)
        self.txt_mlp = FeedForward(dim, kernels)

    @property
    def modulation(self) -> tuple[nn.Module, nn.Module]:
        """The layers behind `BlockModulation`, of the image stream and the text stream."""
        return self.img_mod[1], self.txt_mod[1]

    def forward(self, image: Tensor, text: Tensor, modulation: BlockModulation, joint: Joint) -> tuple[Tensor, Tensor]:
        """image: [B, S, D], text: [1, T, D] → the same."""
        kernels, first = self.kernels, joint.result_tokens
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation.image
        txt_shift, txt_scale, txt_gate, txt_shift_mlp, txt_scale_mlp, txt_gate_mlp = modulation.text
        image_update, text_update = self.attn(
            kernels.modulated(image, scale, shift, first), kernels.modulated(text, txt_scale, txt_shift, first), joint
        )
        image, normed = kernels.gated_modulated(image, gate, image_update, scale_mlp, shift_mlp, first)
        image = kernels.gated(image, gate_mlp, self.img_mlp(normed), first)
        text, normed = kernels.gated_modulated(text, txt_gate, text_update, txt_scale_mlp, txt_shift_mlp, first)
        text = kernels.gated(text, txt_gate_mlp, self.txt_mlp(normed), first)
        return image, text

    def result(self, image: Tensor, text: Tensor, modulation: BlockModulation, joint: Joint) -> Tensor:
        """The result's tokens alone, [B, R, D]: of a last block nothing else is read."""
        kernels, first = self.kernels, joint.result_tokens
        shift, scale, *_ = modulation.image
        *_, gate, shift_mlp, scale_mlp, gate_mlp = modulation.image[:, :1]
        txt_shift, txt_scale, *_ = modulation.text
        update = self.attn.result(
            kernels.modulated(image, scale, shift, first), kernels.modulated(text, txt_scale, txt_shift, first), joint
        )
        result, normed = kernels.gated_modulated(image[:, :first], gate, update, scale_mlp, shift_mlp, first)
        return kernels.gated(result, gate_mlp, self.img_mlp(normed), first)


class JointAttention(nn.Module):
    def __init__(self, dim: int, heads: int, kernels: Kernels) -> None:
        super().__init__()
        self.heads = heads
        self.kernels = kernels
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.add_qkv_proj = nn.Linear(dim, 3 * dim)
        self.norm_q = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_k = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_added_q = nn.RMSNorm(dim // heads, eps=EPS)
        self.norm_added_k = nn.RMSNorm(dim // heads, eps=EPS)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(self, image: Tensor, text: Tensor, joint: Joint) -> tuple[Tensor, Tensor]:
        """image: [B, S, D], text: [1, T, D] → what attention adds to each."""
        image_qkv = self._by_head(self.to_qkv(image), 3)
        text_qkv = self._by_head(self.add_qkv_proj(text), 3)
        gains = (self.norm_added_q.weight, self.norm_added_k.weight), (self.norm_q.weight, self.norm_k.weight)
        mixed = [
            self.kernels.attend(*self.kernels.joined(own_text, own_image, *gains, rope.cos, rope.sin))
            for own_text, own_image, rope in zip(
                torch.split(text_qkv[0], [*joint.text_tokens]), image_qkv, joint.ropes, strict=True
            )
        ]
        image_mixed = torch.stack([each[tokens:] for each, tokens in zip(mixed, joint.text_tokens, strict=True)])
        text_mixed = torch.cat([each[:tokens] for each, tokens in zip(mixed, joint.text_tokens, strict=True)])
        return self.to_out[0](image_mixed), self.to_add_out(text_mixed[None])

    def result(self, image: Tensor, text: Tensor, joint: Joint) -> Tensor:
        """What attention adds to the result's tokens alone, [B, R, D]: they ask, all tokens answer."""
        dim, read = image.shape[-1], joint.result_tokens
        weight, bias, added = self.to_qkv.weight, self.to_qkv.bias, self.add_qkv_proj
        image_q = self._by_head(F.linear(image[:, :read], weight[:dim], bias[:dim]), 1)
        image_kv = self._by_head(F.linear(image, weight[dim:], bias[dim:]), 2)
        text_kv = self._by_head(F.linear(text, added.weight[dim:], added.bias[dim:]), 2)
        asking, answering = (self.norm_q.weight,), ((self.norm_added_k.weight,), (self.norm_k.weight,))
        mixed = []
        for own_text, own_image, query, rope in zip(
            torch.split(text_kv[0], [*joint.text_tokens]), image_kv, image_q, joint.ropes, strict=True
        ):
            at = rope.rows(len(own_text), len(own_text) + read)
            asked = self.kernels.joined(query[:0], query, asking, asking, at.cos, at.sin)
            answers = self.kernels.joined(own_text, own_image, *answering, rope.cos, rope.sin)
            mixed.append(self.kernels.attend(*asked, *answers))
        update: Tensor = self.to_out[0](torch.stack(mixed))
        return update

    def _by_head(self, projected: Tensor, parts: int) -> Tensor:
        """[B, tokens, parts · D] → [B, tokens, parts, heads, head_dim]."""
        return torch.unflatten(projected, -1, (parts, self.heads, -1))

    @torch.no_grad()
    def halve_pairs(self) -> None:
        """Reorder published weights to what the kernels turn."""
        for projection in (self.to_qkv, self.add_qkv_proj):
            for rows in (projection.weight, projection.bias):
                queries, keys, _ = rows.chunk(3)
                queries.copy_(halved(queries, self.heads))
                keys.copy_(halved(keys, self.heads))
        for norm in (self.norm_q, self.norm_k, self.norm_added_q, self.norm_added_k):
            norm.weight.copy_(halved(norm.weight, 1))


class FeedForward(nn.Module):
    def __init__(self, dim: int, kernels: Kernels) -> None:
        super().__init__()
        self.net = nn.ModuleList([Widen(dim, kernels), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.net[2](self.net[0](x))
        return narrowed


class Widen(nn.Module):
    def __init__(self, dim: int, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.proj = nn.Linear(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.gelu(self.proj(x))


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
