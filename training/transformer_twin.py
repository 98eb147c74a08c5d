"""The Qwen-Image transformer as it is trained: published module names, adapters beside the weights, fewer passes over
memory.

Its last block computes the result's tokens alone, since nothing else is read of it. Shapes: B batch, T text tokens,
S image tokens (the result's first), D width.
"""

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from torch import Tensor, nn

from darkroom.engine.rope import joint_rope
from training.config import TransformerSizes

_EPS = 1e-6
_TIME_CHANNELS = 256
ADAPTED = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "img_mlp.net.0.proj", "img_mlp.net.2")
"""A block's modules that adapters change: the image stream's."""


class Adapter(nn.Module):
    """A LoRA: for every adapted module, `down` [rank, in] and `up` [out, rank]; its weight grows by up @ down."""

    def __init__(self, sizes: TransformerSizes, rank: int) -> None:
        super().__init__()
        width = sizes.width
        shapes = dict.fromkeys(ADAPTED, (width, width))
        shapes["img_mlp.net.0.proj"], shapes["img_mlp.net.2"] = (4 * width, width), (width, 4 * width)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for block in range(sizes.layers):
            for name, (outward, inward) in shapes.items():
                key = adapter_key(block, name)
                self.down[key] = nn.Parameter(torch.randn(rank, inward) / math.sqrt(inward))
                self.up[key] = nn.Parameter(torch.zeros(outward, rank))

    def change(self, block: int, name: str) -> Tensor:
        """What it adds to a module's weight."""
        key = adapter_key(block, name)
        grown: Tensor = self.up[key] @ self.down[key]
        return grown


def adapter_key(block: int, name: str) -> str:
    return f"{block}.{name}".replace(".", "-")


def adapted(layers: int) -> Iterator[tuple[str, str]]:
    """Every adapted module: an adapter's own key for it, and its published name."""
    for block in range(layers):
        for name in ADAPTED:
            yield adapter_key(block, name), f"transformer_blocks.{block}.{name}"


class Linear(nn.Linear):
    """A linear layer whose weight may be given a change for one call."""

    def forward(self, x: Tensor, change: Tensor | None = None) -> Tensor:
        return F.linear(x, self.weight if change is None else self.weight + change, self.bias)


class Attention(nn.Module):
    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.to_q, self.to_k, self.to_v = Linear(width, width), Linear(width, width), Linear(width, width)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(width, width)])
        self.to_add_out = Linear(width, width)
        self.norm_q, self.norm_k, self.norm_added_q, self.norm_added_k = (
            nn.RMSNorm(sizes.head_dim, eps=_EPS) for _ in range(4)
        )


class Widen(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = Linear(width, 4 * width)

    def forward(self, x: Tensor, change: Tensor | None) -> Tensor:
        return gelu(self.proj(x, change))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Widen(width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, x: Tensor, wide: Tensor | None = None, narrow: Tensor | None = None) -> Tensor:
        widen, _, narrows = self.net
        out: Tensor = narrows(widen(x, wide), narrow)
        return out


class Block(nn.Module):
    """dtype: of what goes into matrix products; the streams themselves stay in float32."""

    def __init__(self, sizes: TransformerSizes, dtype: torch.dtype) -> None:
        super().__init__()
        width, self.dtype = sizes.width, dtype
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.attn = Attention(sizes)
        self.img_mlp, self.txt_mlp = FeedForward(width), FeedForward(width)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        time: Tensor,
        turn: Tensor,
        bias: Tensor,
        change: dict[str, Tensor],
        read: int,
    ) -> tuple[Tensor, Tensor | None]:
        """image: [B, S, D]; text: [B, T, D]; time: [B, D]; turn: cos and sin of T + S tokens; bias: [B, 1, 1, T + S].

        read: how many image tokens are still needed; fewer than S only in the last block, which then has no text.
        """
        last = read < image.shape[1]
        attn = self.attn
        mod = self.img_mod(time).float()[:, None].chunk(6, -1)
        txt_mod = self.txt_mod(time).float()[:, None].chunk(6, -1)
        normed, txt_normed = self._modulated(image, *mod[:2]), self._modulated(text, *txt_mod[:2])
        queried = normed[:, :read] if last else normed
        k = torch.cat(
            [self._heads(attn.add_k_proj(txt_normed)), self._heads(attn.to_k(normed, change.get("attn.to_k")))], 1
        )
        v = torch.cat(
            [self._heads(attn.add_v_proj(txt_normed)), self._heads(attn.to_v(normed, change.get("attn.to_v")))], 1
        )
        q = self._heads(attn.to_q(queried, change.get("attn.to_q")))
        tokens = text.shape[1]
        k = self._placed(k, attn.norm_added_k.weight, attn.norm_k.weight, tokens, turn)
        if last:
            q = turned(q, attn.norm_q.weight, turn[:, tokens : tokens + read, None])
        else:
            q = torch.cat([self._heads(attn.add_q_proj(txt_normed)), q], 1)
            q = self._placed(q, attn.norm_added_q.weight, attn.norm_q.weight, tokens, turn)
        mixed = _attend(q, k, v, bias)
        image_update = attn.to_out[0](mixed if last else mixed[:, tokens:], change.get("attn.to_out.0"))
        image = image[:, :read] + mod[2] * image_update
        inner = self._modulated(image, *mod[3:5])
        image = image + mod[5] * self.img_mlp(inner, change.get("img_mlp.net.0.proj"), change.get("img_mlp.net.2"))
        if last:
            return image, None
        text = text + txt_mod[2] * attn.to_add_out(mixed[:, :tokens])
        return image, text + txt_mod[5] * self.txt_mlp(self._modulated(text, *txt_mod[3:5]))

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulated(x, shift, scale, self.dtype)

    def _heads(self, projected: Tensor) -> Tensor:
        """[B, tokens, D] → [B, tokens, heads, head]."""
        return torch.unflatten(projected, -1, (self.attn.heads, -1))

    @staticmethod
    def _placed(x: Tensor, text_gain: Tensor, image_gain: Tensor, tokens: int, turn: Tensor) -> Tensor:
        """Normed, and turned to the positions; the two streams have gains of their own."""
        gain = torch.cat([text_gain.expand(tokens, -1), image_gain.expand(x.shape[1] - tokens, -1)])
        return turned(x, gain[:, None], turn[:, :, None])


class Time(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(_TIME_CHANNELS, width), "linear_2": nn.Linear(width, width)}
        )

    def forward(self, moments: Tensor) -> Tensor:
        half = _TIME_CHANNELS // 2
        exponents = torch.arange(half, dtype=torch.float32, device=moments.device) * (-math.log(10000) / half)
        angles = 1000 * moments[:, None] * exponents.exp()
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        out: Tensor = self.timestep_embedder["linear_2"](F.silu(self.timestep_embedder["linear_1"](waves)))
        return out


class OutputNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)


class TransformerTwin(nn.Module):
    """joint: channels of a text token; channels: of an image token. dtype: of matrix products, under autocast to it."""

    def __init__(
        self, sizes: TransformerSizes, *, joint: int, channels: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.sizes, self.dtype = sizes, dtype
        width = sizes.width
        self.time_text_embed = Time(width)
        self.txt_norm = nn.RMSNorm(joint, eps=_EPS)
        self.img_in, self.txt_in = nn.Linear(channels, width), nn.Linear(joint, width)
        blocks = [Block(sizes, dtype) for _ in range(sizes.layers)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.norm_out, self.proj_out = OutputNorm(width), nn.Linear(width, channels)
        for block in blocks:
            _gates_open(block.img_mod, width)
            _gates_open(block.txt_mod, width)
        nn.init.zeros_(self.norm_out.linear.weight)
        nn.init.zeros_(self.norm_out.linear.bias)

    def forward(
        self,
        noisy: Tensor,
        references: Tensor,
        text: Tensor,
        moments: Tensor,
        *,
        padded: Tensor,
        grids: Sequence[tuple[int, int]],
        adapters: Sequence[Adapter] = (),
    ) -> Tensor:
        """The velocity of the result's latents, [B, R, channels].

        noisy: [B, R, channels]; references: [B, S - R, channels]; text: [B, T, joint]; moments: [B], 1 being noise;
        padded: [B, T], true where there is no text; grids: rows and columns of result and references, in tokens.
        """
        read = noisy.shape[1]
        image = self.img_in(torch.cat([noisy, references], dim=1)).float()
        words = self.txt_in(self.txt_norm(text)).float()
        time = self.time_text_embed(moments)
        rope = joint_rope(text.shape[1], grids, self.sizes.axes, noisy.device)
        turn = torch.stack([rope.cos, rope.sin])
        bias = F.pad(padded, (0, image.shape[1]))[:, None, None].float() * -1e4
        final = len(self.transformer_blocks) - 1
        for index, block in enumerate(self.transformer_blocks):
            change = {name: sum(adapter.change(index, name) for adapter in adapters) for name in ADAPTED if adapters}
            image, words = block(image, words, time, turn, bias, change, read if index == final else image.shape[1])
        scale, shift = self.norm_out.linear(F.silu(time)).float()[:, None].chunk(2, -1)
        out: Tensor = self.proj_out(modulated(image, shift, scale, self.dtype))
        return out


@torch.no_grad()
def _gates_open(mod: nn.Sequential, width: int) -> None:
    """Starts as a plain residual block: no shift, no scale, gates of 1."""
    linear = cast("nn.Linear", mod[1])
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear.bias[2 * width : 3 * width] = 1.0
    linear.bias[5 * width :] = 1.0


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, written with a sigmoid: the same, and cheaper both ways when compiled for a CPU."""
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def modulated(x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift).to(dtype)


def turned(x: Tensor, gain: Tensor, turn: Tensor) -> Tensor:
    """x: [B, tokens, heads, head], RMS-normed, times gain, neighbouring channels turned."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS) * gain
    even, odd = torch.unflatten(wide, -1, (-1, 2)).unbind(-1)
    cos, sin = turn[0], turn[1]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """[B, tokens, heads, head] each → [B, query tokens, D]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias.to(q.dtype), dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)
