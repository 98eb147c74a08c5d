"""That nothing in a picture moves on its way to the transformer and back: unedited parts stay where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.layout import read_component
from darkroom.checkpoint.locate import NANO
from darkroom.engine.prepare import VisionConfig, prepare
from darkroom.engine.vae import Vae
from edits import an_edit

PHOTO = Path(__file__).parents[3] / "samples" / "mug.jpg"
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
    return prepare(an_edit(), [picture], sizes, VisionConfig()).references[0].pixels


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [(640, 480), (300, 500), (1000, 610), (97, 131)])
def test_a_picture_is_scaled_as_a_whole(size: tuple[int, int], place: tuple[float, float]) -> None:
    """A spot lies at the same part of the sides as before, to a tenth of a pixel: no border is cut off or added."""
    prepared = reference(marked(*size, place), 256**2)
    _, _, height, width = prepared.shape
    spot = centre((prepared - prepared.median()).clamp(min=0.05)[0, 0] - 0.05)
    assert spot == pytest.approx((place[0] * width, place[1] * height), abs=0.1)


@pytest.fixture(scope="module")
def vae() -> Vae:
    """A small one that was trained."""
    component = read_component(NANO, "vae", {"vae": "AutoencoderKLQwenImage"})
    return Vae.load(component, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("size", [(128, 128), (230, 170), (171, 229), (640, 256), (1024, 768)])
def test_a_picture_lies_behind_the_vae_where_it_lay_before(vae: Vae, size: tuple[int, int]) -> None:
    """A photo of any size, sent through the VAE alone, moves by less than a tenth of a pixel, in none of its quarters
    by more than a sixth; the measure does see a single pixel."""
    with Image.open(PHOTO) as photo:
        before = reference(photo.convert("RGB").resize(size), 224**2)
    after = there_and_back(vae, before)
    assert after.shape == before.shape
    assert max(map(abs, shift(before, after))) < 0.1
    for old, new in zip(quarters(before), quarters(after), strict=True):
        assert max(map(abs, shift(old, new))) < 1 / 6
    assert shift(before, after.roll(1, dims=-1))[0] > 0.5


def quarters(picture: Tensor) -> list[Tensor]:
    return [part for half in picture.chunk(2, dim=-2) for part in half.chunk(2, dim=-1)]


def shift(before: Tensor, after: Tensor) -> tuple[float, float]:
    """How far a picture has moved, across and down, in pixels: the least squares of what its slopes explain."""
    old, new = before[0].mean(0), after[0].mean(0)
    down, across = torch.gradient(old)
    slopes = torch.stack([across.flatten(), down.flatten()], dim=1)
    moved = torch.linalg.lstsq(slopes, (old - new).flatten()[:, None]).solution.flatten()
    return float(moved[0]), float(moved[1])


@torch.inference_mode()
def there_and_back(vae: Vae, picture: Tensor) -> Tensor:
    _, _, height, width = picture.shape
    return vae.decode(vae.encode(picture), width_px=width, height_px=height)
