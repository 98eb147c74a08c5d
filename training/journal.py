"""What a training stage leaves as it goes: its state, its log, its loss curve and its sample sheets."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.pool import save

_SAVE_EVERY_S = 180.0
_CURVE_PX = (900, 300)


class Journal:
    """A stage's folder. `state.pt` is written every few minutes, whole or not at all; `log.jsonl` has its reports."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        folder.mkdir(parents=True, exist_ok=True)
        self._saved = time.monotonic()
        self._first: tuple[int, float] | None = None

    def resume(self) -> dict[str, Any] | None:
        """The state last saved; forgets what was logged after it."""
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        log = self.folder / "log.jsonl"
        if log.exists():
            kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= state["step"]]
            log.write_text("".join(f"{line}\n" for line in kept))
        return state

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved > _SAVE_EVERY_S

    def save(self, state: Mapping[str, Any]) -> None:
        save(dict(state), self.folder / "state.pt")
        self._saved = time.monotonic()

    def report(self, step: int, **figures: float) -> None:
        self._first = self._first or (step, time.monotonic())
        rounded = {name: round(value, 5) for name, value in figures.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **rounded}) + "\n")
        pace = (time.monotonic() - self._first[1]) / max(1, step - self._first[0])
        done = step / self.steps
        bar = "█" * round(20 * done) + "·" * (20 - round(20 * done))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        left_s = pace * (self.steps - step)
        sys.stdout.write(
            f"{self.folder.name} {bar} {step}/{self.steps}  {shown}  {pace:.2f} s/step  {left_s / 60:.0f} min\n"
        )
        sys.stdout.flush()

    def draw_curve(self, names: Sequence[str]) -> None:
        """curve.png: the named figures of the log against steps, each from its least to its greatest."""
        lines = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        wide, high = _CURVE_PX
        picture = Image.new("RGB", _CURVE_PX, "white")
        pen = ImageDraw.Draw(picture)
        for place, name in enumerate(names):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if len(points) < 2:
                continue
            low, top = min(value for _, value in points), max(value for _, value in points)
            colour = ("black", "red", "blue", "green", "orange", "purple")[place % 6]
            pen.text(
                (wide - 260, 8 + 14 * place), f"{name}: {low:.4g} to {top:.4g}, now {points[-1][1]:.4g}", fill=colour
            )
            span = max(top - low, 1e-9)
            xy = [(step / self.steps * wide, high - 8 - (value - low) / span * (high - 16)) for step, value in points]
            pen.line(xy, fill=colour, width=2)
        picture.save(self.folder / "curve.png")


def sheet(rows: Sequence[tuple[str, Sequence[Tensor]]], path: Path) -> None:
    """A PNG with a captioned row of pictures (uint8, 3 × H × W) for each entry."""
    side = rows[0][1][0].shape[-1]
    columns = max(len(pictures) for _, pictures in rows)
    page = Image.new("RGB", (columns * (side + 2), len(rows) * (side + 16)), "white")
    pen = ImageDraw.Draw(page)
    for row, (caption, pictures) in enumerate(rows):
        top = row * (side + 16)
        pen.text((2, top + 1), caption.encode("ascii", "ignore").decode().strip(), fill="black")
        for column, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()), (column * (side + 2), top + 14))
    page.save(path)
