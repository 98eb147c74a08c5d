"""The contact sheet: of every job the worst and the best scenes, in one HTML file."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from training.evaluation.figures import Outcome, Way
from training.evaluation.scenes import Scene, to_image

SHOWN = 8
_STYLE = "body{font:14px sans-serif}figure{display:inline-block;margin:2px;text-align:center}p{margin:18px 0 2px}"
_WAYS = {
    Way.FULL: "ours, 20 steps",
    Way.FAST: "ours, go_fast",
    Way.BARE: "without the LoRA",
    Way.WRONG: "asked otherwise",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    scene: Scene
    made: Mapping[Way, Tensor]
    outcome: Outcome


def extremes(shown: Sequence[Shown]) -> list[Shown]:
    """A job's worst scenes, worst first, then its best, best first."""
    ordered = sorted(shown, key=lambda each: each.outcome.gain_changed_db)
    worst = ordered[:SHOWN]
    return [*worst, *reversed(ordered[len(worst) :][-SHOWN:])]


def write(jobs: Mapping[str, Sequence[Shown]]) -> str:
    parts = [f"<!doctype html><meta charset=utf-8><title>Evaluation</title><style>{_STYLE}</style><h1>Edits</h1>"]
    for job, shown in jobs.items():
        parts.append(f"<h2>{html.escape(job)}: worst first, then best first</h2>")
        parts += [_row(each) for each in shown]
    return "\n".join(parts) + "\n"


def _row(shown: Shown) -> str:
    asked, outcome = shown.scene.asked, shown.outcome
    pictures = {f"picture {place + 1}": picture for place, picture in enumerate(asked.pictures)}
    pictures |= {_WAYS[Way.FULL]: shown.made[Way.FULL], "truth": asked.truth}
    pictures |= {said: shown.made[way] for way, said in _WAYS.items() if way in shown.made and way != Way.FULL}
    said = f"{html.escape(asked.prompt)} <small>scene {outcome.number}, {outcome.gain_changed_db:+.1f} dB</small>"
    return f"<p>{said}</p>" + "".join(_figure(name, picture) for name, picture in pictures.items())


def _figure(name: str, picture: Tensor) -> str:
    file = io.BytesIO()
    to_image(picture).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img width=192 src="data:image/png;base64,{data}"><br><small>{name}</small></figure>'
