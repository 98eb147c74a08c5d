"""A picture in horizontal strips, so that encoding and decoding it keep within a memory: pure arithmetic, no torch.

A strip takes in as many rows above and below as its result depends on, so the strips make up what the whole would give.
"""

from itertools import pairwise

from darkroom.engine.vae_config import Coder, Level

Strip = tuple[range, ...]
"""The rows each level takes in, counted at its resolution; last, the rows of the result."""


def plan_strips(
    coder: Coder, *, latent_rows: int, latent_columns: int, value_bytes: int, memory_bytes: int | None
) -> tuple[Strip, ...]:
    """The fewest strips with which all values alive at once fit into `memory_bytes`; None is no limit.

    Where no number of strips will do, the fewest of those that take least: the device has the last word.
    """
    least = make_strips(coder, latent_rows=latent_rows, count=1)
    if memory_bytes is None:
        return least
    least_bytes = peak_bytes(coder, least, latent_columns, value_bytes)
    for count in range(2, latent_rows + 1):
        if least_bytes <= memory_bytes:
            break
        strips = make_strips(coder, latent_rows=latent_rows, count=count)
        taken_bytes = peak_bytes(coder, strips, latent_columns, value_bytes)
        if taken_bytes < least_bytes:
            least, least_bytes = strips, taken_bytes
    return least


def make_strips(coder: Coder, *, latent_rows: int, count: int) -> tuple[Strip, ...]:
    """`count` strips, equally high to a row of latents."""
    edges = [index * latent_rows // count for index in range(count + 1)]
    return tuple(_strip(coder, start, stop, latent_rows) for start, stop in pairwise(edges))


def peak_bytes(coder: Coder, strips: tuple[Strip, ...], latent_columns: int, value_bytes: int) -> int:
    """The most bytes of activations alive at once, weights and the kernels' own scratch memory left out.

    value_bytes: of a value, times the pictures coded together.
    """
    narrow = max(coder.levels, key=lambda level: level.width).width
    latent_rows = strips[-1][-1].stop // coder.scales[-1]
    latents, pixels = latent_rows * latent_columns, latent_rows * latent_columns * max(coder.scales) ** 2
    # Whole: the picture (in strips, and put together), and what lies between the strips and the latents.
    whole = 2 * 3 * pixels + narrow * latents
    largest = max(
        _alive(level) * len(rows) * latent_columns * scale
        for strip in strips
        for level, rows, scale in zip(coder.levels, strip, coder.scales, strict=False)
    )
    # Attention's input, its norm, the three projections side by side and what they give.
    attention = 6 * narrow * latents
    return value_bytes * (whole + max(largest, attention))


def _strip(coder: Coder, start: int, stop: int, latent_rows: int) -> Strip:
    """From the rows of the result back to those each level needs for them."""
    start, stop = start * coder.scales[-1], stop * coder.scales[-1]
    needed = [range(start, stop)]
    for index in reversed(range(len(coder.levels))):
        here, after, reach = coder.scales[index], coder.scales[index + 1], coder.levels[index].reach
        if after > here:
            # Upsampled, row i comes from row i // 2, and a convolution sees one more on each side.
            start, stop = (start - 1) // 2, (stop + 2) // 2
        elif after < here:
            # Downsampled, row i comes from rows 2 i to 2 i + 2.
            start, stop = 2 * start, 2 * stop + 1
        start, stop = max(start - reach, 0), min(stop + reach, latent_rows * here)
        if after < here:
            # Strides count from the first row taken in.
            start -= start % 2
        needed.append(range(start, stop))
    return tuple(reversed(needed))


def _alive(level: Level) -> int:
    """Values alive at once for a pixel of the level: a residual block's input, its normalised copy and what becomes of
    it; in the first, where the number of channels changes, also the shortcut."""
    first = level.inward + level.width + max(level.inward + level.width, 2 * level.width)
    return max(first if level.inward != level.width else 0, 3 * level.width)
