"""The edits that are timed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from darkroom.edit import Edit, ImageFormat, Output, PictureRef

PHOTO = Path(__file__).parent.parent / "samples" / "mug.jpg"
SIDE_PX = 512
"""Of a picture as it comes in."""
WARM_UP_STEPS = 2
"""The fewest for which the reference's schedule is made of numbers."""

Stages = dict[str, float]
"""Of an edit: seconds by stage's name, with `total` beside them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    edit: Edit
    pictures: Sequence[Image.Image]


def make_request(number: int, *, pictures: int = 1, steps: int = 8, guided: bool = True) -> Request:
    """Every number has pictures of its own, so that nothing is known from an earlier one."""
    return Request(
        edit=Edit(
            prompt="Turn the camera to a top-down view.",
            negative_prompt=" " if guided else None,
            pictures=tuple(PictureRef(field=f"image_{index + 1}", blob="none") for index in range(pictures)),
            aspect_ratio=None,
            seed=number,
            num_inference_steps=steps,
            true_cfg_scale=4.0 if guided else 1.0,
            output=Output(format=ImageFormat.PNG, quality=95),
        ),
        pictures=[_crop(7 * number + index) for index in range(pictures)],
    )


def _crop(number: int) -> Image.Image:
    left, top = number % (_photo().width - SIDE_PX), 3 * number % (_photo().height - SIDE_PX)
    return _photo().crop((left, top, left + SIDE_PX, top + SIDE_PX))


@cache
def _photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")
