"""Unseen scenes, each with what is asked of it and what else might have been."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training import world
from training.judge import rivals_of
from training.world.draft import Draft, Sample
from training.world.jobs import Split, draft
from training.world.render import SIDE_PX

FIRST = 10_000
"""Scenes before are looked at in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """pictures: what the prompt is asked of, in its order; truth: the right answer. All uint8, 3 × 128 × 128."""

    prompt: str
    pictures: tuple[Tensor, ...]
    truth: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """rivals: other things to ask of the same first picture (another turn, another swatch), in an order drawn by
    lot."""

    job: str
    number: int
    asked: Asked
    rivals: tuple[Asked, ...]

    @property
    def before(self) -> Tensor:
        """The picture to edit."""
        return self.asked.pictures[0]


def make_scene(job: str, number: int, *, seed: int, kept: Path | None = None, compiled: bool = True) -> Scene:
    """kept: folder of pictures rendered before, and to keep them in. compiled: see `render`."""
    made = draft(job, Split.EVALUATE, seed, FIRST + number)
    sample = made.rng.choice(made.samples)
    rivals = rivals_of(sample, made.samples)
    made.rng.shuffle(rivals)
    places = sorted({place for one in (sample, *rivals) for place in (*one.pictures, one.target)})
    path = kept / job / f"{number:05d}.png" if kept else None
    pictures = dict(zip(places, _developed(made, places, path, compiled=compiled), strict=True))

    def asked(of: Sample) -> Asked:
        shown = tuple(pictures[place] for place in of.pictures)
        return Asked(prompt=of.prompt, pictures=shown, truth=pictures[of.target])

    right = asked(sample)
    # Two swatches drawn by lot may be the same.
    others = tuple(other for other in map(asked, rivals) if not torch.equal(other.truth, right.truth))
    return Scene(job=job, number=number, asked=right, rivals=others)


def _developed(made: Draft, places: Sequence[int], path: Path | None, *, compiled: bool) -> Iterator[Tensor]:
    """One above the other in the file."""
    if path and path.exists():
        yield from torch.split(read_picture(path), SIDE_PX, dim=1)
        return
    pictures = made.develop(torch.device("cpu"), compiled=compiled)[list(places)]
    if path:
        write_picture(torch.cat(list(pictures), dim=1), path)
    yield from pictures


def read_picture(path: Path) -> Tensor:
    """uint8, 3 × H × W."""
    with Image.open(path) as picture:
        return to_tensor(picture)


def to_tensor(picture: Image.Image) -> Tensor:
    """uint8, 3 × H × W."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """The inverse of `to_tensor`."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def write_picture(picture: Tensor, path: Path) -> None:
    """As PNG; the file is there only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft_path = path.with_suffix(".part")
    to_image(picture).save(draft_path, "PNG")
    draft_path.replace(path)


def world_digest() -> str:
    """Of the code that scenes come from: what is kept is good for this world alone."""
    sources = sorted(Path(world.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
