"""The text encoder as it is trained: Qwen2.5-VL's language model, with one learnt vector for every look of a picture.

The vision tower of so small a checkpoint learns nothing the transformer does not see better itself, so it is left
silent: whatever the picture, its merger answers with its last bias, which is `picture` here.
"""

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from torch import Tensor, nn

from darkroom.engine.text import DROPPED_TOKENS, rope_positions
from training.config import TextSizes

_EPS = 1e-6
_THETA = 1e6
PATCHES = (4, 4)
"""Rows and columns of patches of a 56 px picture."""


class Projections(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.heads, self.kv_heads = sizes.heads, sizes.kv_heads
        head = sizes.hidden // sizes.heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.k_proj = nn.Linear(sizes.hidden, sizes.kv_heads * head)
        self.v_proj = nn.Linear(sizes.hidden, sizes.kv_heads * head)
        self.o_proj = nn.Linear(sizes.hidden, sizes.hidden, bias=False)

    def asked(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, tokens, head], the first two turned to their positions."""
        q, k, v = (
            projection(x).unflatten(-1, (count, -1)).transpose(1, 2)
            for projection, count in (
                (self.q_proj, self.heads),
                (self.k_proj, self.kv_heads),
                (self.v_proj, self.kv_heads),
            )
        )
        return _turned(q, turn), _turned(k, turn), v

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias.to(q.dtype), dim=-1)
        out: Tensor = self.o_proj((weights @ v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(sizes.hidden, eps=_EPS)
        self.self_attn = Projections(sizes)
        self.post_attention_layernorm = nn.RMSNorm(sizes.hidden, eps=_EPS)
        self.mlp = Mlp(sizes)

    def opened(self, x: Tensor, turn: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The opening, the same for a whole batch: [1, tokens, hidden], and its keys and values."""
        q, k, v = self.self_attn.asked(self.input_layernorm(x), turn)
        x = x + self.self_attn.mixed(q, k, v, bias)
        return x + self.mlp(self.post_attention_layernorm(x)), k, v

    def forward(self, x: Tensor, before: tuple[Tensor, Tensor], turn: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.self_attn.asked(self.input_layernorm(x), turn)
        k, v = (torch.cat([past.expand(len(x), -1, -1, -1), new], 2) for past, new in zip(before, (k, v), strict=True))
        x = x + self.self_attn.mixed(q, k, v, bias)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Model(nn.Module):
    def __init__(self, sizes: TextSizes, tokens: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(tokens, sizes.hidden)
        self.stack = [Layer(sizes) for _ in range(sizes.layers)]
        self.layers = nn.ModuleList(self.stack)
        self.norm = nn.RMSNorm(sizes.hidden, eps=_EPS)


class TextTwin(nn.Module):
    """tokens: rows of the embedding. image_token: its id."""

    def __init__(self, sizes: TextSizes, *, tokens: int, image_token: int) -> None:
        super().__init__()
        self.sizes, self.image_token = sizes, image_token
        self.model = Model(sizes, tokens)
        self.picture = nn.Parameter(torch.zeros(sizes.hidden))
        nn.init.normal_(self.model.embed_tokens.weight, std=0.5)

    def forward(self, opening: Tensor, rest: Tensor) -> Tensor:
        """opening: [O], shared by the batch; rest: [B, R], padded on the right (what pads compute is read by no one).

        Returns hidden states [B, O - 64 + R, hidden].
        """
        is_image = opening == self.image_token
        positions = self._positions(is_image.tolist(), rest.shape[1])
        turn = self._turn(positions).to(rest.device)
        count, length = len(opening), rest.shape[1]
        embedded = torch.where(is_image[:, None], self.picture, self.model.embed_tokens(opening))
        x, y = embedded[None], self.model.embed_tokens(rest)
        early = _causal(count, count).to(rest.device)
        late = _causal(length, count + length).to(rest.device)
        for layer in self.model.stack:
            x, k, v = layer.opened(x, turn[:, :count], early)
            y = layer(y, (k, v), turn[:, count:], late)
        hidden = torch.cat([x[:, DROPPED_TOKENS:].expand(len(y), -1, -1), y], dim=1)
        out: Tensor = self.model.norm(hidden)
        return out

    def _positions(self, is_image: list[bool], rest: int) -> Tensor:
        pictures = sum(is_image) // (PATCHES[0] * PATCHES[1] // 4)
        return rope_positions([*is_image, *([False] * rest)], (PATCHES,) * pictures)

    def _turn(self, positions: Tensor) -> Tensor:
        """Cos and sin of each token's angles: [2, tokens, head]."""
        head = self.sizes.hidden // self.sizes.heads
        inverse = 1.0 / (_THETA ** (torch.arange(0, head, 2, dtype=torch.float32) / head))
        angles = positions[..., None].float() * inverse
        parts = torch.split(angles, list(self.sizes.mrope_section), dim=-1)
        mixed = torch.cat([part[axis % 3] for axis, part in enumerate(parts)], dim=-1)
        both = torch.cat([mixed, mixed], dim=-1)
        return torch.stack([both.cos(), both.sin()])


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """x: [B, heads, tokens, head], whose halves make the pairs that are turned."""
    low, high = x.chunk(2, dim=-1)
    cos, sin = turn.to(x.dtype)
    turned: Tensor = x * cos + torch.cat([-high, low], dim=-1) * sin
    return turned


def _causal(queries: int, keys: int) -> Tensor:
    """Added to scores: the last `queries` of the keys' tokens see no later one."""
    allowed = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return torch.zeros(queries, keys).masked_fill(~allowed, float("-inf"))
