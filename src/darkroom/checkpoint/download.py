"""What is still to be fetched of a checkpoint on Hugging Face, worked out from the small files that are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.checkpoint.json_file import read_json
from darkroom.checkpoint.layout import PARTS, SMALL_FILES, STEMS, Component
from darkroom.checkpoint.published import Configs
from darkroom.checkpoint.tensors import needed_tensors, parameters_of, unused_tensors
from darkroom.checkpoint.weights import index_of, read_index
from darkroom.errors import BadCheckpoint

PUBLISHED_BYTES = 2
"""Of a parameter, where no index says how large the files are: bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDownload:
    """here, missing: files of weights; None where nothing names them yet. parameters: those kept in memory."""

    name: str
    here: tuple[str, ...]
    missing: tuple[str, ...] | None
    missing_bytes: int
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """small_files: those missing beside the weights."""

    parts: tuple[PartDownload, ...]
    small_files: tuple[str, ...]

    @property
    def missing_bytes(self) -> int:
        return sum(part.missing_bytes for part in self.parts)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def __bool__(self) -> bool:
        return bool(self.small_files) or any(part.missing != () for part in self.parts)


def plan_download(folder: Path, published: Configs) -> Download:
    """folder: the snapshot in the cache, where files may be missing. published: configs that stand in for missing ones.

    Raises `BadCheckpoint` where a config is neither here nor published, or a file that is here is not sound.
    """
    return Download(
        parts=tuple(_plan_part(folder / part, part, published.get(part)) for part in PARTS),
        small_files=tuple(file for file in SMALL_FILES if not (folder / file).is_file()),
    )


def _plan_part(folder: Path, name: str, published: Mapping[str, Any] | None) -> PartDownload:
    path = folder / "config.json"
    if not path.is_file() and published is None:
        raise BadCheckpoint(f"{path} is missing; `hf download ID --include '*.json'` brings it without the weights")
    config = read_json(path) if published is None or path.is_file() else published
    component = Component(name=name, class_name=PARTS[name], config=config, tensors={})
    kept = parameters_of(needed_tensors(component))
    total_bytes = PUBLISHED_BYTES * (kept + parameters_of(unused_tensors(component)))
    here = tuple(sorted(path.name for path in folder.glob("*.safetensors")))
    missing: tuple[str, ...] | None = () if here else None
    if (index := index_of(folder, STEMS[name])).is_file():
        shards = read_index(index)
        total_bytes = shards.total_bytes or total_bytes
        missing = tuple(file for file in shards.files if file not in here)
    here_bytes = sum((folder / file).stat().st_size for file in here)
    return PartDownload(
        name=name,
        here=here,
        missing=missing,
        missing_bytes=0 if missing == () else max(0, total_bytes - here_bytes),
        parameters=kept,
    )
