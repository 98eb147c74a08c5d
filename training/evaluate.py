"""Measures a run's model through the engine, on unseen scenes: `python -m training.evaluate --out DIR`.

Each job's adapters are written into a copy of the checkpoint, so what is measured is what the engine computes. A table
goes to standard output, figures.json and sheet.html (worst and best first) to DIR/evaluation.
"""

import argparse
import base64
import html
import io
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.engine.engine import Engine
from training.config import Config
from training.export import export
from training.fast_stage import FAST
from training.judge import rivals_of
from training.measure import changed_area, psnr_db
from training.world.draft import Draft, Sample
from training.world.jobs import BASE_JOBS, JOBS, Split, adapters, draft

_BASE_SHARE = 1 / len(BASE_JOBS)
_MAIN = ("multiple_angle", "product_photography", "texture_apply")
_SHOWN = 6
_SEED = 1
_STEPS, _FAST_STEPS = 20, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One job's means over its scenes. whole_db: to the truth. gain_…: over the unchanged first picture, on the whole
    and on the changed area. nearer: share of scenes nearer to the truth than the input. adapter_db: what the adapters
    give on the changed area, right_db and right_wins: the right prompt against a rival. nearest: share of scenes whose
    picture is nearer to the truth than to what any rival asks. fast_db: 8 steps against 20,
    whole. None where there is nothing to compare."""

    scenes: int
    whole_db: float
    gain_whole_db: float
    gain_changed_db: float
    nearer: float
    adapter_db: float | None
    right_db: float | None
    right_wins: float | None
    nearest: float | None
    fast_db: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A sample with its pictures at hand. rivals: what else is asked of the same first picture."""

    sample: Sample
    inputs: tuple[Tensor, ...]
    truth: Tensor
    rivals: "tuple[Scene, ...]" = ()


def scenes(job: str, count: int, seed: int) -> list[Scene]:
    """Unseen scenes of a job, one sample of each."""
    found = []
    for number in range(count):
        made = draft(job, Split.EVALUATE, seed, number + 10_000)
        sample = made.rng.choice(made.samples)
        found.append(_scene(made, sample, made.develop(torch.device("cpu"))))
    return found


def _scene(made: Draft, sample: Sample, pictures: Tensor) -> Scene:
    def one(of: Sample) -> Scene:
        return Scene(sample=of, inputs=tuple(pictures[n] for n in of.pictures), truth=pictures[of.target])

    return replace(one(sample), rivals=tuple(one(rival) for rival in rivals_of(sample, made.samples)))


def edit(engine: Engine, of: Scene, *, steps: int) -> Tensor:
    """The engine's answer: uint8, 3 × H × W."""
    refs = tuple(PictureRef(field=f"image_{n + 1}", blob="") for n in range(len(of.inputs)))
    asked = Edit(
        prompt=of.sample.prompt,
        negative_prompt=None,
        pictures=refs,
        aspect_ratio=None,
        seed=_SEED,
        num_inference_steps=steps,
        true_cfg_scale=1.0,
        output=Output(format=ImageFormat.PNG, quality=100),
    )
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in of.inputs]
    made = engine.edit(asked, pictures, lambda _: None).image
    return (
        torch.frombuffer(bytearray(made.tobytes()), dtype=torch.uint8).view(made.height, made.width, 3).permute(2, 0, 1)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    """full: with the job's adapters; bare: without, None if it has none; fast: with the 8-step LoRA as well."""

    full: Engine
    bare: Engine | None
    fast: Engine


def _engines(config: Config, folder: Path, job: str, work: Path) -> Engines:
    def load(merged: tuple[str, ...], *, fast: bool = False) -> Engine:
        to = work / "-".join(("with", *merged, *((FAST,) if fast else ())))
        if not to.exists():
            export(config, folder, to, merged=merged, fast=fast)
        return Engine.load(to, device="cpu", dtype="auto")

    full, own = load(adapters(job)), adapters(job)
    distilled = (folder / FAST / "finished.pt").exists()
    return Engines(full=full, bare=load(()) if own else None, fast=load(own, fast=True) if distilled else full)


def measure(of: Sequence[Scene], engines: Engines) -> tuple[Figures, Tensor]:
    """Returns the figures and the pictures made."""
    engine, bare, steps = engines.full, engines.bare, _STEPS
    truth, before = torch.stack([s.truth for s in of]), torch.stack([s.inputs[0] for s in of])
    area = changed_area(truth, before)
    made = torch.stack([edit(engine, scene, steps=steps) for scene in of])
    whole, part = psnr_db(made, truth), psnr_db(made, truth, area)
    fast_whole = psnr_db(torch.stack([edit(engines.fast, scene, steps=_FAST_STEPS) for scene in of]), truth)
    adapter_db = None
    if bare is not None:
        without = torch.stack([edit(bare, scene, steps=steps) for scene in of])
        adapter_db = float((part - psnr_db(without, truth, area)).mean())
    places = [n for n, scene in enumerate(of) if scene.rivals]
    right_db = right_wins = nearest = None
    if places:
        wrong = torch.stack([edit(engine, of[n].rivals[0], steps=steps) for n in places])
        ahead = part[places] - psnr_db(wrong, truth[places], area[places])
        right_db, right_wins = float(ahead.mean()), float((ahead > 0).float().mean())
        nearest = sum(_nearest(made[n], of[n]) for n in places) / len(places)
    figures = Figures(
        scenes=len(of),
        whole_db=float(whole.mean()),
        gain_whole_db=float((whole - psnr_db(before, truth)).mean()),
        gain_changed_db=float((part - psnr_db(before, truth, area)).mean()),
        nearer=float((whole > psnr_db(before, truth)).float().mean()),
        adapter_db=adapter_db,
        right_db=right_db,
        right_wins=right_wins,
        nearest=nearest,
        fast_db=float((fast_whole - whole).mean()),
    )
    return figures, made


def _nearest(made: Tensor, of: Scene) -> bool:
    asked = torch.stack([of.truth, *(rival.truth for rival in of.rivals)])
    return int(psnr_db(made.expand_as(asked), asked).argmax()) == 0


def evaluate(config: Config, folder: Path, *, main: int = 200, sibling: int = 50) -> dict[str, Figures]:
    """main: scenes for each of the four main jobs (the base's edits share one); sibling: for every other. A run without
    its 8-step LoRA yet is measured at 8 steps of the model itself."""
    found: dict[str, Figures] = {}
    page: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        for job in JOBS:
            count = round(main * _BASE_SHARE) if job in BASE_JOBS else main if job in _MAIN else sibling
            asked = scenes(job, max(1, count), config.seed)
            found[job], made = measure(asked, _engines(config, folder, job, Path(work)))
            sys.stdout.write(row(job, found[job]) + "\n")
            sys.stdout.flush()
            page.append(_section(job, asked, made))
    to = folder / "evaluation"
    to.mkdir(exist_ok=True)
    kept = {job: asdict(figures) for job, figures in found.items()}
    (to / "figures.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    (to / "sheet.html").write_text(_page(page), encoding="utf-8")
    return found


def row(job: str, figures: Figures) -> str:
    """A line of the table."""
    shown = (f"{name} {value:.2f}" for name, value in asdict(figures).items() if value is not None)
    return f"{job:20} " + "  ".join(shown)


def _section(job: str, asked: Sequence[Scene], made: Tensor) -> str:
    """The job's worst and best scenes: inputs, ours, truth."""
    truth = torch.stack([scene.truth for scene in asked])
    order = psnr_db(made, truth).argsort().tolist()
    chosen: Mapping[int, None] = dict.fromkeys([*order[:_SHOWN], *reversed(order[-_SHOWN:])])
    rows = []
    for n in chosen:
        pictures = "".join(_image(picture) for picture in (*asked[n].inputs, made[n], truth[n]))
        rows.append(f"<p>{html.escape(asked[n].sample.prompt)}<br>{pictures}</p>")
    return f"<h2>{html.escape(job)}</h2>{''.join(rows)}"


def _image(picture: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return f'<img width="192" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"> '


def _page(sections: Sequence[str]) -> str:
    head = "<!doctype html><meta charset=utf-8><title>Evaluation</title><h1>Inputs, ours, truth</h1>"
    return head + "".join(sections) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--main", type=int, default=200, help="scenes for each of the four main jobs")
    parser.add_argument("--sibling", type=int, default=50, help="scenes for every other job")
    asked = parser.parse_args()
    evaluate(Config(), asked.out, main=asked.main, sibling=asked.sibling)


if __name__ == "__main__":
    main()
