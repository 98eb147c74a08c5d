"""Measures a checkpoint's edits of unseen scenes through the HTTP API: `python -m training.evaluate`, or `make eval`.

Says which bars are held. figures.json (every scene's too), figures.md and sheet.html (worst and best scenes) go into
the folder of the evaluation. One that was stopped goes on where it was.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from darkroom.checkpoint.declaration import read_declaration
from darkroom.checkpoint.layout import read_layout
from darkroom.checkpoint.locate import NANO
from darkroom.engine.device import choose_dtype
from darkroom.engine.vae import Vae
from training.config import Config
from training.evaluation import report, sheet
from training.evaluation.bars import ALL, GROUPS, MAIN, PLUS, bars_of
from training.evaluation.figures import Outcome, Way, judge, means
from training.evaluation.scenes import Scene, make_scene, read_picture, world_digest, write_picture
from training.evaluation.service import Edits, Request, offered, serving
from training.evaluation.sheet import Shown
from training.evaluation.ways import requests_of
from training.world.jobs import BASE_JOBS, JOBS, PAIRED
from training.world.render import SIDE_PX

_CPU = torch.device("cpu")
_AT_ONCE = 8
"""Edits under way, so that the worker never waits for the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Scenes for each of the main groups (the base's jobs share one), and for every other job. jobs: which are
    measured."""

    main: int = 200
    sibling: int = 50
    jobs: Sequence[str] = JOBS

    def scenes(self, job: str) -> int:
        if job in BASE_JOBS:
            # What is left over goes to the first ones.
            share, left = divmod(self.main, len(BASE_JOBS))
            return share + (BASE_JOBS.index(job) < left)
        return self.main if job in MAIN else self.sibling


def evaluate(
    checkpoint: Path, out: Path, *, seed: int, extent: Extent | None = None, compiled: bool = True
) -> dict[str, Any]:
    """Returns what figures.json has. out: the evaluation's folder. compiled: see `render`.

    Raises RuntimeError where the service does not start or an edit fails, `BadCheckpoint`, `BadSetting`."""
    started, extent, digest = time.perf_counter(), extent or Extent(), digest_of(checkpoint)
    kept = out / f"edits-{digest}-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        scenes = _scenes(extent, seed, out / f"scenes-{world_digest()}-{seed}", progress, compiled=compiled)
        edits = asyncio.run(_edit(checkpoint, scenes, kept, out / "serve.log", progress))
    judged = _judged(checkpoint, scenes, kept)
    results = {
        "checkpoint": digest,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "scenes": len(scenes),
        "edits": edits,
        "took_s": round(time.perf_counter() - started),
        **_summary([one.outcome for one in judged]),
    }
    shown = {job: sheet.extremes([one for one in judged if one.scene.job == job]) for job in extent.jobs}
    (out / "sheet.html").write_text(sheet.write(shown), encoding="utf-8")
    (out / "figures.md").write_text(report.write(results), encoding="utf-8")
    (out / "figures.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(kept)
    return results


def _scenes(extent: Extent, seed: int, kept: Path, progress: Progress, *, compiled: bool) -> list[Scene]:
    wanted = [(job, number) for job in extent.jobs for number in range(extent.scenes(job))]
    named = progress.track(wanted, description="scenes")
    return [make_scene(job, number, seed=seed, kept=kept, compiled=compiled) for job, number in named]


async def _edit(checkpoint: Path, scenes: Sequence[Scene], kept: Path, log: Path, progress: Progress) -> int:
    """Every scene in every way; how many edits that are, with those that were there already."""
    second = read_declaration(checkpoint).loras[PAIRED[1]]
    with offered(second.parent) as files:
        link = f"http://{files}/{second.name}"
        wanted = {
            _path(kept, scene, way): request
            for scene in scenes
            for way, request in requests_of(scene, second=link).items()
        }
        missing = {path: request for path, request in wanted.items() if not path.exists()}
        task = progress.add_task("edits", total=len(wanted), completed=len(wanted) - len(missing))
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def make(edits: Edits, request: Request, path: Path) -> None:
            async with at_once:
                picture = await edits.make(request)
                await asyncio.to_thread(write_picture, picture, path)
                progress.advance(task)

        if not missing:
            return len(wanted)
        try:
            async with serving(checkpoint, log, fetch_allow=files) as edits, asyncio.TaskGroup() as group:
                for path in sorted(missing):
                    group.create_task(make(edits, missing[path], path))
        except ExceptionGroup as errors:
            raise RuntimeError(f"an edit has failed; {log} may say why") from errors.exceptions[0]
    return len(wanted)


def _path(kept: Path, scene: Scene, way: Way) -> Path:
    """In the order of these names LoRAs seldom change."""
    return kept / scene.job / way / f"{scene.number:05d}.png"


def _judged(checkpoint: Path, scenes: Sequence[Scene], kept: Path) -> list[Shown]:
    vae = Vae.load(read_layout(checkpoint).vae, device=_CPU, dtype=choose_dtype("auto", _CPU))
    judged = []
    for scene in scenes:
        paths = {way: _path(kept, scene, way) for way in Way}
        made = {way: read_picture(path) for way, path in paths.items() if path.exists()}
        judged.append(Shown(scene=scene, made=made, outcome=judge(scene, made, _coded(vae, scene.asked.truth))))
    return judged


@torch.inference_mode()
def _coded(vae: Vae, picture: Tensor) -> Tensor:
    """Through the VAE and back."""
    tokens = vae.encode(picture[None] / 127.5 - 1)
    shown = vae.decode(tokens, width_px=SIDE_PX, height_px=SIDE_PX)[0].float()
    return ((shown / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    jobs = {group: BASE_JOBS if group == PLUS else JOBS if group == ALL else (group,) for group in GROUPS}
    groups = _rows(outcomes, jobs)
    bars = [bar for group, row in groups.items() for bar in bars_of(group, row)]
    return {
        "bars": [asdict(bar) | {"held": bar.held} for bar in bars],
        "groups": groups,
        "base_jobs": _rows(outcomes, {job: (job,) for job in BASE_JOBS}),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def _rows(outcomes: Sequence[Outcome], jobs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """By group, of those of its jobs that were measured."""
    found = {group: [one for one in outcomes if one.job in named] for group, named in jobs.items()}
    return {group: {"scenes": len(mine), **means(mine)} for group, mine in found.items() if mine}


def digest_of(checkpoint: Path) -> str:
    """Of all its files."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=NANO, help="a folder (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=Path("build/eval"), help="(default: %(default)s)")
    parser.add_argument("--main", type=int, default=200, help="scenes for each of the four main groups")
    parser.add_argument("--sibling", type=int, default=50, help="scenes for every other job")
    parser.add_argument("--job", action="append", choices=JOBS, help="only this one; may be repeated")
    parser.add_argument("--page", type=Path, help="where to write the figures as a page, too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 unless every bar is held")
    asked = parser.parse_args(arguments)
    extent = Extent(main=asked.main, sibling=asked.sibling, jobs=asked.job or JOBS)
    results = evaluate(asked.checkpoint, asked.out, seed=Config().seed, extent=extent)
    sys.stdout.write(report.write(results) + f"\nPictures: {(asked.out / 'sheet.html').resolve()}\n")
    if asked.page:
        asked.page.write_text(report.page(results), encoding="utf-8")
    if asked.strict and not all(bar["held"] for bar in results["bars"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
