"""Matrices in the form they are multiplied in."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from darkroom.engine.kernels import PLAIN
from darkroom.engine.linear import FEWEST_ROWS, OUTLIERS, Float8Linear, PackedLinear, can_float8, can_pack, reform
from darkroom.engine.transformer import Transformer, TransformerConfig

CPU = torch.device("cpu")


def a_linear(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Linear(64, 96).to(dtype).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_product_is_the_product(dtype):
    """At any number of tokens, batched or not."""
    if not can_pack(CPU, dtype):
        pytest.skip(f"oneDNN has no {dtype} here")
    stored = a_linear(dtype)
    packed = PackedLinear(stored)
    for shape in ((1, 1), (1, 7), (2, 300)):
        x = torch.randn(*shape, 64, dtype=dtype)
        torch.testing.assert_close(packed(x), stored(x))


def test_a_float8_product_is_off_by_what_float8_rounds():
    """Some 4 % of the exact product, bias exact; tokens of very different sizes are no worse off."""
    stored = a_linear(torch.bfloat16)
    coarse = Float8Linear(stored, PLAIN)
    x = torch.randn(2, 40, 64, dtype=torch.bfloat16) * torch.logspace(-3, 3, 40, dtype=torch.bfloat16)[:, None]
    exact, made = stored(x) - stored.bias, coarse(x) - stored.bias
    error = (made - exact).float().norm(dim=-1) / exact.float().norm(dim=-1).clamp(min=1)
    assert made.shape == exact.shape
    assert 0.005 < error.max() < 0.06
    torch.testing.assert_close(coarse(torch.zeros(1, 1, 64, dtype=torch.bfloat16))[0, 0], stored.bias)


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_few_tokens_are_multiplied_as_among_many(tokens, monkeypatch):
    """So few rows as cuBLAS refuses are never asked of it; those added change no bit and are cut off again."""
    asked = []
    multiply = torch._scaled_mm
    monkeypatch.setattr(
        torch, "_scaled_mm", lambda rows, *rest, **options: asked.append(len(rows)) or multiply(rows, *rest, **options)
    )
    coarse = Float8Linear(a_linear(torch.bfloat16), PLAIN)
    many = torch.randn(1, FEWEST_ROWS, 64, dtype=torch.bfloat16)
    few = coarse(many[:, :tokens])
    assert few.shape == (1, tokens, 96)
    assert torch.equal(few, coarse(many)[:, :tokens])
    assert asked == [FEWEST_ROWS, FEWEST_ROWS]


def test_float8_stays_off_where_the_device_has_none():
    assert not can_float8(CPU)


def test_every_matrix_is_reformed_but_those_read_in_another_way():
    """Modulation, the layers that are named, and the last block's projections whose rows are read apart."""
    config = TransformerConfig(
        num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(8, 12, 12)
    )
    transformer = Transformer(dataclasses.replace(config)).to(torch.bfloat16)
    for block in transformer.blocks:
        reform(block, partial(Float8Linear, kernels=PLAIN), leave=OUTLIERS, last=block is transformer.blocks[-1])
    reformed, left = (
        {name for name, module in transformer.transformer_blocks.named_modules() if isinstance(module, kind)}
        for kind in (Float8Linear, nn.Linear)
    )
    both = {"attn.to_out.0", "attn.to_add_out", "img_mlp.net.0.proj", "txt_mlp.net.0.proj"}
    kept = {"img_mod.1", "txt_mod.1", "img_mlp.net.2", "txt_mlp.net.2"}
    assert reformed == {f"{n}.{name}" for n in (0, 1) for name in both} | {"0.attn.to_qkv", "0.attn.add_qkv_proj"}
    assert left == {f"{n}.{name}" for n in (0, 1) for name in kept} | {"1.attn.to_qkv", "1.attn.add_qkv_proj"}
