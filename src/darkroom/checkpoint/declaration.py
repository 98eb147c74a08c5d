"""What a checkpoint says of itself in its darkroom.json, which may be absent and silent on any of it.

{
  "output_area_px": 16384, "vae_area_px": 16384, "condition_area_px": 4096, "side_multiple_px": 16, "side_max_px": 144,
  "guidance_scale": 1.0,
  "loras": {"relight": "loras/relight.safetensors"}
}
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final

from darkroom.checkpoint.json_file import read_json
from darkroom.checkpoint.locate import locate
from darkroom.checkpoint.published import PUBLISHED
from darkroom.edit import LORA_NAME
from darkroom.errors import BadCheckpoint

FILE: Final = "darkroom.json"
GUIDANCE: Final = (1, 20)
"""From no guidance to the most that a request may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingSizes:
    """The areas pictures are brought to: the result, a reference for the VAE, a reference for the text encoder.

    side_multiple_px: what their sides are multiples of. The model needs the side of a token, 16; the published pipeline
    takes twice that. side_max_px: the longest that a side may be, whatever that makes of the area.
    """

    output_area_px: int = 1024 * 1024
    vae_area_px: int = 1024 * 1024
    condition_area_px: int = 384 * 384
    side_multiple_px: int = 32
    side_max_px: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """guidance_scale: the default where a request has none; None: the model card's. loras: the checkpoint's own files,
    absolute, by the name that requests have them under."""

    working_sizes: WorkingSizes = WorkingSizes()
    guidance_scale: float | None = None
    loras: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


TOKEN_PX: Final = 16
_SIZES: Final = tuple(size.name for size in fields(WorkingSizes))
_KNOWN: Final = (*_SIZES, "guidance_scale", "loras")
_SUFFIX: Final = ".safetensors"


def read_declaration(folder: Path) -> Declaration:
    """Raises `BadCheckpoint` that names the first entry at fault, or the LoRA that is missing."""
    path = folder / FILE
    entries = read_json(path) if path.exists() else {}
    for name in entries:
        if name not in _KNOWN:
            raise BadCheckpoint(f"{path}: unknown key {name!r}; known are {', '.join(_KNOWN)}")
    sizes = {name: _size(path, name, entries[name]) for name in _SIZES if name in entries}
    return Declaration(
        working_sizes=WorkingSizes(**sizes),
        guidance_scale=_guidance(path, entries["guidance_scale"]) if "guidance_scale" in entries else None,
        loras=MappingProxyType(_loras(path, entries.get("loras", {}))),
    )


def declared(checkpoint: str | None) -> Declaration:
    """Of the checkpoint that the setting of that name has; nothing while it is not here, or not sound, which the worker
    that loads it will say."""
    if checkpoint is None or checkpoint in PUBLISHED:
        return Declaration()
    try:
        folder = locate(checkpoint, fetch=False)
        stat = (folder / FILE).stat()
        found = _read(folder, stat.st_mtime_ns, stat.st_size)
    except (BadCheckpoint, FileNotFoundError):
        return Declaration()
    return found if all(file.is_file() for file in found.loras.values()) else Declaration()


@lru_cache(maxsize=8)
def _read(folder: Path, _mtime_ns: int, _size_bytes: int) -> Declaration:
    """Anew only when the file has changed: a submit asks several times. What is not sound is not remembered."""
    return read_declaration(folder)


def _size(path: Path, name: str, value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name.startswith("side_"):
        if not whole or value < TOKEN_PX or value % TOKEN_PX:
            raise BadCheckpoint(f"{path}: {name} = {value!r} must be a multiple of {TOKEN_PX}, the side of a token")
    elif not whole or value < 32 * 32:
        raise BadCheckpoint(f"{path}: {name} = {value!r} must be a whole number of pixels, 1024 (32 × 32) or more")
    return int(value)


def _guidance(path: Path, value: Any) -> float:
    least, most = GUIDANCE
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadCheckpoint(f"{path}: guidance_scale = {value!r} must be a number from {least} to {most}")
    return float(value)


def _loras(path: Path, value: Any) -> dict[str, Path]:
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: loras must be an object, each LoRA's name with its file")
    return {name: _lora(path, name, file) for name, file in value.items()}


def _lora(path: Path, name: str, value: Any) -> Path:
    entry = f"{path}: loras: {name!r}"
    if not re.fullmatch(LORA_NAME, name):
        raise BadCheckpoint(f"{entry}: a LoRA's name is of lower-case letters, digits and _")
    if not isinstance(value, str) or not value.endswith(_SUFFIX):
        raise BadCheckpoint(f"{entry}: {value!r} must be a file that ends in {_SUFFIX}")
    inside = PurePosixPath(value)
    if inside.is_absolute() or ".." in inside.parts or "\\" in value:
        raise BadCheckpoint(
            f"{entry}: {value!r} leaves the checkpoint; name a file in its folder, like loras/a{_SUFFIX}"
        )
    file = path.parent / inside
    if not file.is_file():
        raise BadCheckpoint(f"{file} is missing; {path} names it")
    return file.absolute()
