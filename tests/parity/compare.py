"""Two runs of the same edit, held against each other stage by stage."""

import numpy as np
import torch

from parity.oracle import Kept

LEVEL = 1 / 255
STAGES = ("seen", "prompt", "negative", "references", "noise", "sigmas", "timesteps")


def assert_alike(ours: Kept, theirs: Kept) -> None:
    for stage in STAGES:
        assert_near(stage, getattr(ours, stage), getattr(theirs, stage))
    assert len(ours.predictions) == len(theirs.predictions)
    for number, (prediction, expected) in enumerate(zip(ours.predictions, theirs.predictions, strict=True)):
        assert_near(f"forward pass {number}", prediction, expected)
    assert_near("latents", ours.latents[-1], theirs.latents[-1])
    assert ours.picture.shape == theirs.picture.shape
    assert np.abs(ours.picture - theirs.picture).max() <= LEVEL


def assert_near(what: str, ours: torch.Tensor | None, theirs: torch.Tensor | None) -> None:
    if theirs is None:
        assert ours is None, what
        return
    assert ours.shape == theirs.shape, what
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= 1e-4, f"{what} is {error:.1e} off"


def levels_between(picture: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(picture - other).max() / LEVEL)
