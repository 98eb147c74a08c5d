"""Edits and pictures for tests of the engine."""

import numpy as np
from PIL import Image

from darkroom.edit import Edit, ImageFormat, Output, PictureRef

SHAPES = ((160, 120), (75, 125), (200, 80))
"""Of the first, second and third picture, in pixels: odd ratios, smaller than what they are brought to."""


def a_picture(width: int, height: int) -> Image.Image:
    """Colour ramps under a wave, so that flips and swaps of channels and sides show."""
    y, x = np.mgrid[:height, :width]
    levels = np.stack([x / width * 255, y / height * 255, 128 + 100 * np.sin(x / 5) * np.cos(y / 3)], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def some_pictures(count: int) -> list[Image.Image]:
    return [a_picture(*shape) for shape in SHAPES[:count]]


def an_edit(
    *,
    prompt: str = "Make the sky red, by night",
    negative_prompt: str | None = " ",
    pictures: int = 1,
    aspect_ratio: tuple[int, int] | None = None,
    seed: int = 1,
    steps: int = 2,
    true_cfg_scale: float = 4.0,
) -> Edit:
    return Edit(
        prompt=prompt,
        negative_prompt=negative_prompt,
        pictures=tuple(
            PictureRef(field=f"image_{number + 1}", blob=f"image_{number + 1}") for number in range(pictures)
        ),
        aspect_ratio=aspect_ratio,
        seed=seed,
        num_inference_steps=steps,
        true_cfg_scale=true_cfg_scale,
        output=Output(format=ImageFormat.PNG, quality=95),
    )
