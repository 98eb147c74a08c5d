"""That nothing in a picture moves on its way to the transformer and back.

What is ours to get right is geometry: how a picture is brought to the reference's size, and how latents are laid out.
The tests' checkpoint has random weights, so its VAE blurs at random too: through it, places are known to a latent's
width and no better. How sharply a trained VAE gives a picture back is a property of its weights.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom.checkpoint.layout import WorkingSizes
from darkroom.engine.engine import Engine
from darkroom.engine.prepare import VisionConfig, prepare
from darkroom.engine.vae import SCALE_PX, Vae
from edits import an_edit

PLACES = ((0.3, 0.4), (0.5, 0.5), (0.62, 0.71), (0.8, 0.25))
"""Across and down, as parts of the sides."""


def marked(width: int, height: int, place: tuple[float, float]) -> Image.Image:
    """A soft white spot on grey, its centre at this place."""
    y, x = np.mgrid[:height, :width] + 0.5
    radius = min(width, height) / 12
    distance = (x - place[0] * width) ** 2 + (y - place[1] * height) ** 2
    level = 100 + 155 * np.exp(-distance / (2 * radius**2))
    return Image.fromarray(np.repeat(level.round().astype(np.uint8)[..., None], 3, axis=2))


def centre(weight: Tensor) -> np.ndarray:
    """Of a [height, width] of weights: across and down, in pixels."""
    height, width = weight.shape
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    total = weight.sum()
    return np.array([float((weight.sum(0) * x).sum() / total), float((weight.sum(1) * y).sum() / total)])


def reference(picture: Image.Image, area_px: int) -> Tensor:
    sizes = WorkingSizes(output_area_px=area_px, vae_area_px=area_px, condition_area_px=96**2)
    return prepare(an_edit(), [picture], sizes, VisionConfig()).references[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [(640, 480), (300, 500), (1000, 610), (97, 131)])
def test_a_picture_is_scaled_as_a_whole(size: tuple[int, int], place: tuple[float, float]) -> None:
    """A spot lies at the same part of the sides as before, to a tenth of a pixel: no border is cut off or added."""
    prepared = reference(marked(*size, place), 256**2)
    _, _, height, width = prepared.shape
    spot = centre((prepared - prepared.median()).clamp(min=0.05)[0, 0] - 0.05)
    assert spot == pytest.approx((place[0] * width, place[1] * height), abs=0.1)


@pytest.mark.parametrize(("across", "down"), [(56, 48), (65, 57), (80, 79), (95, 64), (104, 73)])
def test_a_place_is_the_same_place_behind_the_vae(engine: Engine, across: int, down: int) -> None:
    """What is changed in a picture changes in the decoded one there, to a latent's width, on its grid or off it."""
    plain = torch.zeros(1, 3, 128, 160)
    dotted = plain.clone()
    dotted[:, :, down - 4 : down + 4, across - 4 : across + 4] = 1
    before, after = (there_and_back(engine._models.vae, each) for each in (plain, dotted))
    assert after.shape == plain.shape
    assert centre((after - before)[0].square().sum(0)) == pytest.approx((across, down), abs=SCALE_PX)


@torch.inference_mode()
def there_and_back(vae: Vae, picture: Tensor) -> Tensor:
    _, _, height, width = picture.shape
    return vae.decode(vae.encode(picture), width_px=width, height_px=height)
