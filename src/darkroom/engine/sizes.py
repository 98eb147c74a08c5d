"""To which sizes pictures are brought."""

import math

from darkroom.checkpoint.declaration import WorkingSizes

VISION_MULTIPLE_PX = 28
"""Sides the text encoder sees: its patch of 14 × 2 merged."""

VISION_MAX_RATIO = 200


def fit(area_px: int, ratio: float, *, multiple_px: int, max_px: int | None = None) -> tuple[int, int]:
    """Width and height of about this area at this ratio (width / height), less where a side would be longer than
    `max_px`; each the nearest multiple.

    A ratio too extreme for the area gives a side of 0.
    """
    width = math.sqrt(area_px * ratio)
    height = width / ratio
    if max_px is not None and (excess := max(width, height) / max_px) > 1:
        width, height = width / excess, height / excess
    return round(width / multiple_px) * multiple_px, round(height / multiple_px) * multiple_px


def fit_to(sizes: WorkingSizes, area_px: int, ratio: float) -> tuple[int, int]:
    """Width and height of one of a checkpoint's areas, with sides as it has them."""
    return fit(area_px, ratio, multiple_px=sizes.side_multiple_px, max_px=sizes.side_max_px)


def fit_vision(width: int, height: int, *, min_px: int, max_px: int) -> tuple[int, int]:
    """The text encoder's own rounding: multiples of 28 whose area lies between the two bounds."""
    side = VISION_MULTIPLE_PX
    fitted = round(width / side) * side, round(height / side) * side
    if fitted[0] * fitted[1] > max_px:
        shrink = math.sqrt(width * height / max_px)
        return max(side, math.floor(width / shrink / side) * side), max(side, math.floor(height / shrink / side) * side)
    if fitted[0] * fitted[1] < min_px:
        grow = math.sqrt(min_px / (width * height))
        return math.ceil(width * grow / side) * side, math.ceil(height * grow / side) * side
    return fitted
