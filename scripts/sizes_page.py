"""Writes docs/sizes.md from the rule that the engine goes by and the ratios that the cards have."""

from pathlib import Path

from darkroom.catalogue import read_catalogue
from darkroom.checkpoint.declaration import WorkingSizes, read_declaration
from darkroom.checkpoint.locate import NANO
from darkroom.engine.sizes import fit_to

PAGE = Path(__file__).parent.parent / "docs" / "sizes.md"
MATCH = "match_input_image"

SIZES, NANO_SIZES = WorkingSizes(), read_declaration(NANO).working_sizes
MULTIPLE_PX = SIZES.side_multiple_px

INTRODUCTION = f"""\
# Sizes of results

<!-- Written by scripts/sizes_page.py from src/darkroom/engine/sizes.py; a test holds the two together. -->

A result has about {SIZES.output_area_px:,} pixels (1024 × 1024) at the ratio asked for, each side rounded
to the nearest multiple of {MULTIPLE_PX}: the rule of the published model's reference pipeline. With `{MATCH}`, the
default, the ratio is the first picture's. So a result is stretched against what was asked for by no more than that
rounding, at most {MULTIPLE_PX // 2} pixels a side. Nothing is cropped. Each further picture keeps its own ratio.

A checkpoint may have another area, other multiples and a longest side (`output_area_px`, `side_multiple_px` and
`side_max_px` in its darkroom.json). nano has {NANO_SIZES.output_area_px:,} pixels (128 × 128), multiples of \
{NANO_SIZES.side_multiple_px}, and {NANO_SIZES.side_max_px} at most.

| aspect_ratio | width × height | ratio | off by | with nano | off by |
|---|---|---|---|---|---|
"""

MATCHED = """
Some first pictures, and what `match_input_image` makes of them:

| picture | result | off by |
|---|---|---|
"""

PICTURES = ((1024, 1024), (1920, 1080), (1080, 1920), (4032, 3024), (3000, 2000), (1200, 628), (640, 480), (2560, 1080))


def page() -> str:
    ratios = {name: None for card in read_catalogue().values() for name in card.parameters["aspect_ratio"].enum}
    named = [name for name in ratios if name != MATCH]
    named.sort(key=_ratio)
    return (
        INTRODUCTION
        + "".join(_row(f"`{name}`", *_named(_ratio(name))) for name in named)
        + MATCHED
        + "".join(_row(f"{width} × {height}", *_fitted(SIZES, width / height)) for width, height in PICTURES)
    )


def _ratio(name: str) -> float:
    width, height = map(int, name.split(":"))
    return width / height


def _named(ratio: float) -> tuple[str, ...]:
    width, height = fit_to(SIZES, SIZES.output_area_px, ratio)
    size, off = _fitted(SIZES, ratio)
    return size, f"{width / height:.3f}", off, *_fitted(NANO_SIZES, ratio)


def _fitted(sizes: WorkingSizes, ratio: float) -> tuple[str, str]:
    """The size made of a ratio, and how far its own ratio is from that."""
    width, height = fit_to(sizes, sizes.output_area_px, ratio)
    return f"{width} × {height}", f"{abs(width / height / ratio - 1):.1%}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
