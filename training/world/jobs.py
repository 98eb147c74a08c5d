"""Every job by name, and how a number becomes samples of it."""

import random
from collections.abc import Callable
from enum import Enum
from functools import partial

from training.world import base_jobs, people_jobs, scene_jobs
from training.world.draft import Draft


class Split(Enum):
    """Which scenes: no scene and no held-out swatch of one split occurs in the other."""

    TRAIN = "train"
    EVALUATE = "evaluate"


BASE_JOBS = ("plus.recolour", "plus.erase", "plus.add", "plus.floor", "plus.light", "plus.seat")
PRESETS = (
    "multiple_angle",
    "product_photography",
    "texture_apply",
    "texture_extract",
    "eigen_banana",
    "blend_it",
    "relight",
    "remove_lighting",
    "next_scene",
    "group_photo",
    "add_people",
    "face_to_portrait",
    "eraser",
)
PAIR = "pair"
PAIRED = ("multiple_angle", "eigen_banana")
JOBS = (*BASE_JOBS, *PRESETS, PAIR)


def adapters(job: str) -> tuple[str, ...]:
    """The adapters a job takes."""
    if job == PAIR:
        return PAIRED
    return (job,) if job in PRESETS else ()


def draft(job: str, split: Split, seed: int, number: int) -> Draft:
    """The samples of scene `number`, undeveloped. The same four always give the same samples."""
    made = Draft(rng=random.Random(f"{split.value}/{seed}/{job}/{number}"))  # noqa: S311 — scenes, not secrets
    _builder(job, held_out=split is Split.EVALUATE)(made)
    return made


def _builder(job: str, *, held_out: bool) -> Callable[[Draft], None]:
    if job.startswith("plus."):
        return getattr(base_jobs, job.removeprefix("plus."))  # type: ignore[no-any-return]
    if job in {"texture_apply", "texture_extract"}:
        return partial(getattr(scene_jobs, job), held_out=held_out)
    module = people_jobs if hasattr(people_jobs, job) else scene_jobs
    return getattr(module, job)  # type: ignore[no-any-return]
