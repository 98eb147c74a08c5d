"""How tokens attend to one another, each in the way that is quickest where it runs.

Queries, keys and values are [tokens, heads, head_dim]; what comes of them is [query tokens, heads · head_dim].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

SCORES_BYTES = 64 * 2**20
"""Of scores alive at once: more queries than give so many are taken part by part."""


def choose(device: torch.device, dtype: torch.dtype) -> Attend:
    """By products on a CPU that multiplies bfloat16 in its vector units, where torch's own kernel widens to float32. It
    does not with AMX, and on a GPU it is the best there is."""
    widens = dtype == torch.bfloat16 and device.type == "cpu" and not torch.cpu.get_capabilities().get("amx_bf16")
    return by_products if widens else fused


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By torch's kernel, which never has all scores in memory."""
    query, key, value = (each[None].transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By two products, the scores between them rounded to the dtype computed in."""
    heads, head_dim = query.shape[1:]
    keys, values, nothing = key.permute(1, 2, 0), value.transpose(0, 1), query.new_empty(1, 1, 1)
    mixed = []
    for asking in torch.split(query, max(1, SCORES_BYTES // (heads * len(key) * query.itemsize))):
        scores = torch.baddbmm(nothing, asking.transpose(0, 1), keys, beta=0, alpha=head_dim**-0.5)
        mixed.append((torch.softmax(scores, dim=-1) @ values).transpose(0, 1))
    return torch.cat(mixed).flatten(1)
