"""An engine without one of its optimisations makes the same of an edit, or timing it would prove nothing."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from benchmarks.ablations import ablations
from benchmarks.work import MEMO_BYTES, Work
from darkroom.engine.engine import Encoded, Engine
from darkroom.engine.kernels import PLAIN

LEVEL = 1.01 / 255


@pytest.fixture(scope="module")
def work(tiny_checkpoint):
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="float32", memo_bytes=MEMO_BYTES)
    return Work(engine, steps=2)


@pytest.fixture(scope="module")
def listed(work, tiny_checkpoint):
    return ablations(work.engine, tiny_checkpoint)


def test_the_result_is_the_same_without_it(work, listed):
    """To one level of 255 in pictures, and as near in all else, for every row of the table."""
    for each in listed:
        run = getattr(work, each.work)
        whole = tensors(run())
        with each.away():
            bare = tensors(run())
        for one, other in zip(whole, bare, strict=True):
            torch.testing.assert_close(
                one, other, rtol=1e-3, atol=LEVEL, msg=lambda said, row=each.name: f"{row}: {said}"
            )


def test_it_is_back_afterwards(work, listed):
    """The engine that one row leaves behind is the one that the next begins with."""
    before = work.denoise()
    for each in listed:
        with each.away():
            pass
    assert torch.equal(work.denoise(), before)


def test_a_row_is_marked_where_the_engine_has_not_got_it(work, listed):
    """The tiny checkpoint is too small to be worth compiling for, and its two rows say so."""
    assert work.engine._models.transformer.blocks[0].attn.kernels == PLAIN
    assert {each.name for each in listed if not each.given} >= {"GELU compiled"}


def tensors(value):
    if isinstance(value, Encoded):
        return astuple(value)
    return (value if isinstance(value, torch.Tensor) else torch.from_numpy(np.asarray(value) / 255),)
