"""The first stage: pictures of any size become what the text encoder and the VAE take in."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image, Resampling
from torch import Tensor

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.edit import Edit
from darkroom.engine.sizes import VISION_MAX_RATIO, fit_to, fit_vision
from darkroom.errors import EngineFailed, PictureInvalid

PATCH_PX = 14
MERGE = 2
FRAMES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionConfig:
    """preprocessor_config.json of the text encoder's eyes."""

    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "VisionConfig":
        size = config.get("size") or {}
        return cls(
            image_mean=tuple(config.get("image_mean", cls().image_mean)),
            image_std=tuple(config.get("image_std", cls().image_std)),
            min_pixels=config.get("min_pixels") or size.get("shortest_edge") or cls().min_pixels,
            max_pixels=config.get("max_pixels") or size.get("longest_edge") or cls().max_pixels,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Pictures as the text encoder sees them.

    patches: [all patches, 3 · 2 · 14 · 14], in the order in which 2 × 2 of them are merged. grids: rows and columns of
    patches, by picture. digest: of both.
    """

    patches: Tensor
    grids: tuple[tuple[int, int], ...]
    digest: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A picture as the VAE takes it in. pixels: [1, 3, height, width] in -1…1. digest: of them."""

    pixels: Tensor
    digest: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """references: by picture. width_px, height_px: of the result."""

    seen: Seen
    references: tuple[Reference, ...]
    width_px: int
    height_px: int


def prepare(edit: Edit, pictures: Sequence[Image], sizes: WorkingSizes, vision: VisionConfig) -> Prepared:
    """pictures: RGB, as many as the edit has. Raises `PictureInvalid` naming one too narrow or too flat to be used."""
    both = [_sizes(ref.field, picture, sizes) for ref, picture in zip(edit.pictures, pictures, strict=True)]
    conditions, references = zip(*both, strict=True)
    resized = _resize([*pictures, *pictures], [*conditions, *references])
    views, grids = zip(*(see(each, vision) for each in resized[: len(pictures)]), strict=True)
    width, height = edit.aspect_ratio or pictures[0].size
    width_px, height_px = fit_to(sizes, sizes.output_area_px, width / height)
    if not (width_px and height_px):
        if edit.aspect_ratio is None:
            raise _too_extreme(edit.pictures[0].field, pictures[0])
        raise EngineFailed(f"aspect_ratio {width}:{height} is too extreme for this model", field="aspect_ratio")
    patches = np.concatenate(views)
    return Prepared(
        seen=Seen(patches=torch.from_numpy(patches), grids=grids, digest=_digest(patches, grids)),
        references=tuple(map(_reference, resized[len(pictures) :])),
        width_px=width_px,
        height_px=height_px,
    )


def see(picture: Image, vision: VisionConfig) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """A picture as patches [rows · columns, 3 · 2 · 14 · 14], and its rows and columns."""
    size = fit_vision(*picture.size, min_px=vision.min_pixels, max_px=vision.max_pixels)
    mean, std = (np.array(each, dtype=np.float32) for each in (vision.image_mean, vision.image_std))
    pixels = (_levels(picture.resize(size, Resampling.BICUBIC)) - mean) / std
    rows, columns = size[1] // PATCH_PX, size[0] // PATCH_PX
    grouped = pixels.reshape(rows // MERGE, MERGE, PATCH_PX, columns // MERGE, MERGE, PATCH_PX, 3)
    # (row group, column group, row in it, column in it, channel, y, x); a still fills both frames of a patch.
    patches = np.expand_dims(grouped.transpose(0, 3, 1, 4, 6, 2, 5), axis=5)
    return np.repeat(patches, FRAMES, axis=5).reshape(rows * columns, -1), (rows, columns)


def _resize(pictures: Sequence[Image], sizes: Sequence[tuple[int, int]]) -> list[Image]:
    """Each to its size, in threads: Pillow lets others run. Half of the cores are left to the job made meanwhile."""
    for picture in pictures:
        picture.load()
    with ThreadPoolExecutor(max(1, torch.get_num_threads() // 2)) as threads:
        return list(threads.map(lambda each, size: each.resize(size, Resampling.LANCZOS), pictures, sizes))


def _sizes(field: str, picture: Image, sizes: WorkingSizes) -> tuple[tuple[int, int], tuple[int, int]]:
    ratio = picture.width / picture.height
    condition, reference = (fit_to(sizes, area_px, ratio) for area_px in (sizes.condition_area_px, sizes.vae_area_px))
    if not all((*condition, *reference)) or max(condition) > VISION_MAX_RATIO * min(condition):
        raise _too_extreme(field, picture)
    return condition, reference


def _too_extreme(field: str, picture: Image) -> PictureInvalid:
    return PictureInvalid(
        f"{field}: {picture.width} × {picture.height} pixels are too narrow or too flat for this model; "
        "crop the picture or pad it",
        field=field,
    )


def _reference(picture: Image) -> Reference:
    pixels = np.asarray(picture)
    levels = 2 * torch.from_numpy(_levels(picture)).permute(2, 0, 1)[None] - 1
    return Reference(pixels=levels, digest=_digest(pixels, pixels.shape))


def _digest(values: NDArray[Any], shape: Sequence[object]) -> bytes:
    return hashlib.sha256(repr(shape).encode() + values.tobytes()).digest()


def _levels(picture: Image) -> NDArray[np.float32]:
    """[height, width, 3] in 0…1."""
    levels: NDArray[np.float32] = np.divide(np.asarray(picture), 255, dtype=np.float32)
    return levels
