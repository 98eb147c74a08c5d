"""A scene's figures, and their means. All in dB of PSNR to the renderer's truth, or shares of scenes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import torch
from torch import Tensor

from training.evaluation.scenes import Scene
from training.measure import changed_area, psnr_db


class Way(StrEnum):
    """How a scene is edited. FULL is what the others are held against."""

    FULL = "20-steps"
    FAST = "go-fast"
    BARE = "without-lora"
    WRONG = "wrong-prompt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One scene's. whole_db: to the truth. gain_…: over the unchanged first picture, on the changed area (grown by two
    pixels) and on the whole. nearer: to the truth than the input is. vae_db: what the VAE alone makes of the truth.
    adapter_db: 20 steps with the LoRA against without. right_db: the right prompt against a rival, right_wins: whether
    that is above 0. nearest: whether the picture is nearer to the truth than to what any rival asks; these four on the
    changed area but `nearest`, None where there is nothing to compare. fast_db: go_fast against 20 steps."""

    job: str
    number: int
    prompt: str
    gain_changed_db: float
    gain_whole_db: float
    whole_db: float
    nearer: float
    vae_db: float
    adapter_db: float | None
    right_db: float | None
    right_wins: float | None
    nearest: float | None
    fast_db: float


MEASURES = tuple(field.name for field in fields(Outcome) if field.name not in ("job", "number", "prompt"))


def judge(scene: Scene, made: Mapping[Way, Tensor], coded: Tensor) -> Outcome:
    """made: the scene's edits, those of them that it has. coded: the truth through the VAE and back."""
    truth, before = scene.asked.truth, scene.before
    area = changed_area(truth[None], before[None])

    def whole(picture: Tensor) -> float:
        return float(psnr_db(picture[None], truth[None]))

    def changed(picture: Tensor) -> float:
        return float(psnr_db(picture[None], truth[None], area))

    full, full_changed = whole(made[Way.FULL]), changed(made[Way.FULL])
    right_db = full_changed - changed(made[Way.WRONG]) if Way.WRONG in made else None
    return Outcome(
        job=scene.job,
        number=scene.number,
        prompt=scene.asked.prompt,
        gain_changed_db=full_changed - changed(before),
        gain_whole_db=full - whole(before),
        whole_db=full,
        nearer=float(full > whole(before)),
        vae_db=whole(coded),
        adapter_db=full_changed - changed(made[Way.BARE]) if Way.BARE in made else None,
        right_db=right_db,
        right_wins=None if right_db is None else float(right_db > 0),
        nearest=_nearest(scene, made[Way.FULL]) if scene.rivals else None,
        fast_db=whole(made[Way.FAST]) - full,
    )


def _nearest(scene: Scene, made: Tensor) -> float:
    truths = torch.stack([scene.asked.truth, *(rival.truth for rival in scene.rivals)])
    return float(psnr_db(made.expand_as(truths), truths).argmax() == 0)


def means(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Each measure over the scenes that have it, None if none has."""
    found: dict[str, float | None] = {}
    for name in MEASURES:
        values = [value for outcome in outcomes if (value := getattr(outcome, name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found
