"""A parameter with what adapters add to it."""

import pytest
import torch

from darkroom.engine.adapter import Difference, Kronecker, LowRank, merged_weights
from darkroom.engine.kernels import halved
from darkroom.engine.merge import Part, factors, merging

ROWS, COLUMNS, HEADS = 96, 64, 2
SCALES = (1.0, 0.5, 0.7, -1.3)


def low_rank(seed, dtype, *, rank=5, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, COLUMNS, generator=generator) / COLUMNS**0.5
    b = 0.3 * torch.randn(rows, rank, generator=generator) / rank**0.5
    return LowRank(a=a.to(dtype), b=b.to(dtype), scale=SCALES[seed % len(SCALES)])


def values_of(dtype, rows=ROWS):
    return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(9)).to(dtype)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_factors_are_exact(dtype, stored):
    """Their product is the sum of all changes as float32 has it, in whatever dtype they were stored and are now."""
    changes = [(low_rank(seed, stored), strength) for seed, strength in enumerate((1.0, 0.75, -2.0, 0.3))]
    up, down = factors(changes, 0, dtype)
    exact = sum(strength * change.scale * (change.b.double() @ change.a.double()) for change, strength in changes)
    assert up.dtype == down.dtype == dtype
    torch.testing.assert_close(up.double() @ down.double(), exact, rtol=0, atol=2**-16 * float(exact.abs().max()))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_a_merged_parameter_is_rounded_once(stored):
    """In bfloat16 it is the float32 sum, rounded: some value in a thousand may fall on the other side of a tie."""
    changes = [(low_rank(seed, stored), strength) for seed, strength in enumerate((1.0, 0.75, -2.0))]
    values = values_of(torch.bfloat16)
    expected = merged_weights({"w": values}, [({"w": (change,)}, strength) for change, strength in changes])["w"]
    made = merging(values, [Part(slice(None), 0, changes)])()
    assert (made != expected).float().mean() < 0.001
    torch.testing.assert_close(made, expected, rtol=2**-7, atol=2**-7)


def test_no_more_is_multiplied_than_is_needed():
    """What bfloat16 holds, a power of two's multiple included, is one pair of factors; else there are remainders."""
    ranks = {
        (stored, strength): factors([(low_rank(0, stored), strength)], 0, torch.bfloat16)[0].shape[1]
        for stored, strength in (
            (torch.bfloat16, 1.0),
            (torch.bfloat16, -0.5),
            (torch.bfloat16, 0.7),
            (torch.float16, 1.0),
        )
    }
    assert [*ranks.values()] == [5, 5, 10, 15]
    assert factors([(low_rank(0, torch.float16), 0.7)], 0, torch.bfloat16, exact=False)[0].shape[1] == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_only_its_own_rows_are_changed(dtype):
    """Of three parts one has a low rank, in halved order, one is no product of a low rank, and one is left alone."""
    values = values_of(dtype, 3 * ROWS)
    kept = values.clone()
    low, other = low_rank(2, torch.bfloat16), Kronecker(w1=(torch.randn(3, 2),), w2=(torch.randn(32, 32),), scale=0.1)
    parts = [
        Part(slice(0, ROWS), HEADS, [(low, 1.0)]),
        Part(slice(ROWS, 2 * ROWS), 0, [(low, 0.5), (other, 2.0)]),
    ]
    made = merging(values, parts, out=torch.full_like(values, torch.nan))()
    expected = kept.to(torch.float32, copy=True)
    expected[:ROWS] += halved(low.delta(), HEADS)
    expected[ROWS : 2 * ROWS] += 0.5 * low.delta() + 2 * other.delta()
    torch.testing.assert_close(made, expected.to(dtype))
    assert torch.equal(values, kept)
    assert torch.equal(made[2 * ROWS :], kept[2 * ROWS :])


def test_a_vector_is_changed_too():
    """A bias, and the gain of a head whose values are halved."""
    values, difference = torch.randn(8), Difference(value=torch.arange(8.0), scale=1.0)
    made = merging(values, [Part(slice(None), 1, [(difference, 2.0)])])()
    assert torch.equal(made, values + 2 * halved(torch.arange(8.0), 1))
