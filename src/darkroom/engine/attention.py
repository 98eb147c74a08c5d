"""How tokens attend to one another, each in the way that is quickest where it runs.

Queries, keys and values are [tokens, heads, head_dim]; what comes of them is [query tokens, heads · head_dim].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

SCORES_BYTES = 16 * 2**20
"""Of scores alive at once, so few that they stay in a cache: more queries than give so many are taken part by part."""


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
    """By two products for each head, the scores between them rounded to the dtype computed in."""
    scale, nothing, mixed = query.shape[-1] ** -0.5, query.new_empty(1, 1), torch.empty_like(query)
    at_once = max(1, SCORES_BYTES // (len(key) * query.itemsize))
    for queries, keys, values, out in zip(*(each.unbind(1) for each in (query, key, value, mixed)), strict=True):
        for asking, answer in zip(queries.split(at_once), out.split(at_once), strict=True):
            scores = torch.addmm(nothing, asking, keys.t(), beta=0, alpha=scale)
            torch.mm(torch.softmax(scores, dim=-1), values, out=answer)
    return mixed.flatten(1)
