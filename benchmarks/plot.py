"""Curves as an SVG: a panel for each axis, readable on light and dark pages alike."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = {"ours": "#2f81f7", "reference": "#e3702d"}
GREY = "#808080"
WIDTH, HEIGHT, LEFT, TOP, GAP = 220, 170, 60, 34, 70


def draw(growth: Mapping[str, Any]) -> str:
    """growth: as `benchmarks.growth.measure` gives it."""
    panels = [
        _panel(name, points, LEFT + index * (WIDTH + GAP))
        for index, (name, points) in enumerate(growth["axes"].items())
    ]
    keys = [
        _text(LEFT + 60 * index, 14, name, colour=colour, anchor="start")
        for index, (name, colour) in enumerate(COLOURS.items())
    ]
    width, height = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + 44
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Seconds of an edit, ours and the reference pipeline\'s">'
    )
    return "\n".join([head, *keys, *panels, "</svg>", ""])


def _panel(name: str, points: Sequence[Mapping[str, float]], left: float) -> str:
    """Both axes from zero, so that a curve's height is its cost."""
    most_x = max(point["at"] for point in points)
    most_y = max(point[side] for point in points for side in COLOURS)

    def x(value: float) -> float:
        return left + value / most_x * WIDTH

    def y(value: float) -> float:
        return TOP + HEIGHT - value / most_y * HEIGHT

    parts = [f'<path d="M{left} {TOP} V{TOP + HEIGHT} H{left + WIDTH}" fill="none" stroke="{GREY}"/>']
    parts += [_text(left - 5, y(value) + 4, f"{value:.3g} s", anchor="end") for value in (most_y, most_y / 2)]
    parts += [_text(x(point["at"]), TOP + HEIGHT + 16, f"{point['at']}") for point in points]
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + 34, name))
    for side, colour in COLOURS.items():
        spots = [(x(point["at"]), y(point[side])) for point in points]
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>' for across, down in spots]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, *, colour: str = GREY, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
