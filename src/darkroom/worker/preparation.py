"""A job's first stages, which need no device: its pictures are fetched, read, and made ready for the engine."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name
from darkroom.edit import Edit, PictureRef
from darkroom.fetch.guard import Fetcher
from darkroom.job import Job, Stage
from darkroom.picture import Limits, ReadPicture, read_picture


class Preparing(Protocol):
    """The engine's side of it. What it gives is its own affair, and handed back to it as it is."""

    def prepare(self, edit: Edit, pictures: Sequence[Image.Image]) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """prepared: the engine's. timings_s: what `fetch` and `prepare` took. warnings: about the pictures, for people."""

    prepared: Any
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...]


class Preparer:
    """Safe to use from several threads, and for the same job from several workers."""

    def __init__(self, *, blobs: Folder, fetcher: Fetcher, engine: Preparing, limits: Limits) -> None:
        self._blobs = blobs
        self._fetcher = fetcher
        self._engine = engine
        self._limits = limits

    def prepare(self, job: Job, on_fetched: Callable[[], None] = lambda: None) -> Preparation:
        """Blocks for the network. Raises `JobError` for pictures at fault, `OutOfMemory`, what `on_fetched` raises."""
        started = time.perf_counter()
        pictures = asyncio.run(self._pictures(job))
        fetch_s = time.perf_counter() - started
        on_fetched()
        started = time.perf_counter()
        prepared = self._engine.prepare(job.edit, [picture.image for picture in pictures])
        return Preparation(
            prepared=prepared,
            timings_s={Stage.FETCH: fetch_s, Stage.PREPARE: time.perf_counter() - started},
            warnings=tuple(warning for picture in pictures for warning in picture.warnings),
        )

    async def _pictures(self, job: Job) -> list[ReadPicture]:
        async def one(ref: PictureRef) -> ReadPicture:
            data = await self._bytes(job, ref)
            return await asyncio.to_thread(read_picture, data, field=ref.field, limits=self._limits)

        return list(await asyncio.gather(*(one(ref) for ref in job.edit.pictures)))

    async def _bytes(self, job: Job, ref: PictureRef) -> bytes:
        """The picture's file. One from an address is kept, so that whoever works on the job has the same bytes."""
        if ref.url is None:
            assert ref.blob is not None  # noqa: S101  PictureRef has either
            return self._blobs.get(ref.blob)
        name = input_name(job.id, ref.field)
        try:
            return self._blobs.get(name)
        except FileNotFoundError:
            data = await self._fetcher.fetch(ref.url, field=ref.field)
            return await asyncio.to_thread(self._blobs.keep, name, data)
