"""The training scenes on disk, in numbered shards: rendered once, encoded once, drawn from many times.

A shard's content depends on the seed and its number alone, so any shard can be made again, by anyone, in any order.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from training.world.draft import Sample
from training.world.jobs import Split, draft

# How many scenes of each job a shard has: of the hard jobs many, since they are soon known by heart (texture more than
# any); those whose scenes yield many samples need fewer.
SCENES = MappingProxyType(
    {
        "plus.recolour": 6,
        "plus.erase": 7,
        "plus.add": 8,
        "plus.floor": 5,
        "plus.light": 3,
        "plus.seat": 5,
        "multiple_angle": 72,
        "product_photography": 6,
        "texture_apply": 96,
        "texture_extract": 32,
        "eigen_banana": 3,
        "blend_it": 5,
        "relight": 5,
        "remove_lighting": 4,
        "next_scene": 6,
        "group_photo": 4,
        "add_people": 6,
        "face_to_portrait": 4,
        "eraser": 5,
        "pair": 5,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """pictures: uint8, N × 3 × side × side; samples name them by place."""

    pictures: Tensor
    samples: tuple[Sample, ...]


def make_shard(
    split: Split,
    seed: int,
    number: int,
    *,
    device: torch.device,
    scenes: Mapping[str, int] = SCENES,
    compiled: bool = True,
) -> Shard:
    """Shard `number` of the split, rendered. scenes: of each job."""
    pictures: list[Tensor] = []
    samples: list[Sample] = []
    count = 0
    for job, each in scenes.items():
        for scene in range(number * each, (number + 1) * each):
            made = draft(job, split, seed, scene)
            developed = made.develop(device, compiled=compiled)
            samples.extend(_moved(sample, count) for sample in made.samples)
            pictures.append(developed)
            count += len(developed)
    return Shard(pictures=torch.cat(pictures), samples=tuple(samples))


def _moved(sample: Sample, by: int) -> Sample:
    return Sample(
        job=sample.job,
        pictures=tuple(place + by for place in sample.pictures),
        prompt=sample.prompt,
        target=sample.target + by,
        rivals=sample.rivals,
    )


def picture_shard(
    folder: Path, seed: int, number: int, *, device: torch.device, scenes: Mapping[str, int] = SCENES
) -> Shard:
    """A training shard, rendered unless the folder has it."""
    path = folder / f"pictures-{number:04d}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        return Shard(pictures=kept["pictures"], samples=tuple(_sample(record) for record in kept["samples"]))
    shard = make_shard(Split.TRAIN, seed, number, device=device, scenes=scenes)
    save({"pictures": shard.pictures.cpu(), "samples": [asdict(sample) for sample in shard.samples]}, path)
    return shard


def _sample(record: dict[str, object]) -> Sample:
    return Sample(**{**record, "pictures": tuple(record["pictures"])})  # type: ignore[arg-type]


def save(state: object, path: Path) -> None:
    """Writes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)  # noqa: PTH105 — the atomic one, by its usual name
