"""Attention: whichever way is chosen, it is the same function."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its customary name

from darkroom.engine import attention

HEADS, HEAD_DIM, TOKENS = 3, 24, 70


def some(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("queries", [TOKENS, 20], ids=["all tokens ask", "the result's alone"])
@pytest.mark.parametrize("at_once", [10**9, 7 * TOKENS * 4], ids=["in one part", "in parts of seven"])
@pytest.mark.parametrize("attend", [attention.fused, attention.by_products])
def test_every_way_gives_its_formula(attend, at_once, queries, monkeypatch):
    """softmax(q kᵀ / √d) v, head by head, however many scores may be alive at once."""
    monkeypatch.setattr(attention, "SCORES_BYTES", at_once)
    query, key, value = (some(TOKENS, HEADS, HEAD_DIM, seed=seed) for seed in range(3))
    query = 3 * query[:queries]
    weights = torch.softmax(torch.einsum("qhd,khd->hqk", query, key) / HEAD_DIM**0.5, dim=-1)
    expected = torch.einsum("hqk,khd->qhd", weights, value).flatten(1)
    torch.testing.assert_close(attend(query, key, value), expected)


def test_torchs_kernel_is_given_one_batch_without_gaps(monkeypatch):
    """Its strides are those of a batch laid out token by token: cuDNN makes another plan, or none, for odd ones."""
    given = []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *parts: given.extend(parts) or attend(*parts))
    attention.fused(*(some(TOKENS, HEADS, HEAD_DIM, seed=seed) for seed in range(3)))
    width = HEADS * HEAD_DIM
    assert {each.stride() for each in given} == {(TOKENS * width, HEAD_DIM, width, 1)}


def test_rounded_scores_cost_no_more_than_rounded_weights():
    """In bfloat16 the products' error is at most three times that of torch's kernel, which rounds the weights alone."""
    query, key, value = (some(4 * TOKENS, HEADS, HEAD_DIM, seed=seed).bfloat16() for seed in range(3))
    exact = attention.fused(query.double(), key.double(), value.double())
    errors = [
        (attend(query, key, value) - exact).square().mean().sqrt()
        for attend in (attention.by_products, attention.fused)
    ]
    assert errors[0] < 3 * errors[1]


@pytest.mark.parametrize(
    ("device", "dtype", "amx", "chosen"),
    [
        ("cpu", torch.bfloat16, False, attention.by_products),
        ("cpu", torch.bfloat16, True, attention.fused),
        ("cpu", torch.float32, False, attention.fused),
        ("cuda", torch.bfloat16, False, attention.fused),
    ],
)
def test_products_are_chosen_where_torchs_kernel_widens(device, dtype, amx, chosen, monkeypatch):
    """On CPUs with bfloat16 in their vector units alone."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    assert attention.choose(torch.device(device), dtype) is chosen
