"""A job's first stages, which need no device: its pictures are fetched, read, and made ready for the engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from PIL import Image

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name
from darkroom.edit import Edit, PictureRef
from darkroom.fetch.guard import Fetcher
from darkroom.job import Job, Stage
from darkroom.lora.adapters import Adapters
from darkroom.lora.convert import AdapterFile
from darkroom.picture import Limits, ReadPicture, read_picture

ADVANCE_S = 1.0

T = TypeVar("T")


class Preparing(Protocol):
    """The engine's side of it. What it gives is its own affair, and handed back to it as it is."""

    def prepare(self, edit: Edit, pictures: Sequence[Image.Image]) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """prepared: the engine's. timings_s: what each stage took. warnings: about the pictures, for people."""

    prepared: Any
    loras: tuple[AdapterFile, ...]
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...]


class Preparer:
    """Safe to use from several threads, and for the same job from several workers."""

    def __init__(
        self, *, blobs: Folder, fetcher: Fetcher, adapters: Adapters, engine: Preparing, limits: Limits
    ) -> None:
        self._blobs = blobs
        self._fetcher = fetcher
        self._adapters = adapters
        self._engine = engine
        self._limits = limits

    def is_here(self, job: Job) -> bool:
        """Whether the job needs nothing from the network."""
        edit = job.edit
        pictures = (ref.url is None or self._blobs.has(input_name(job.id, ref.field)) for ref in edit.pictures)
        return all(pictures) and all(map(self._adapters.is_here, edit.loras))

    def bring(self, job: Job) -> Mapping[str, float]:
        """Fetch what the job needs from the network, and keep it; the seconds that each stage took. Blocks.

        Raises `JobError`.
        """
        timings_s: dict[str, float] = {}
        with _timed(Stage.FETCH, timings_s):
            asyncio.run(_all(self._bytes(job, ref) for ref in job.edit.pictures))
        if job.edit.loras:
            with _timed(Stage.LORAS, timings_s):
                asyncio.run(_all(map(self._adapters.fetch, job.edit.loras)))
        return timings_s

    def prepare(self, job: Job, enter: Callable[[Stage], None] = lambda _: None) -> Preparation:
        """Blocks for the network. enter: told of each stage after the first.

        Raises `JobError` for pictures or LoRAs at fault, `OutOfMemory`, what `enter` raises.
        """
        timings_s: dict[str, float] = {}
        with _timed(Stage.FETCH, timings_s):
            pictures = asyncio.run(self._pictures(job))
        loras: tuple[AdapterFile, ...] = ()
        if job.edit.loras:
            enter(Stage.LORAS)
            with _timed(Stage.LORAS, timings_s):
                loras = asyncio.run(self._loras(job, partial(enter, Stage.LORAS)))
        enter(Stage.PREPARE)
        with _timed(Stage.PREPARE, timings_s):
            prepared = self._engine.prepare(job.edit, [picture.image for picture in pictures])
        return Preparation(
            prepared=prepared,
            loras=loras,
            timings_s=timings_s,
            warnings=tuple(warning for picture in pictures for warning in picture.warnings),
        )

    async def _loras(self, job: Job, advance: Callable[[], None]) -> tuple[AdapterFile, ...]:
        """advance: called every `ADVANCE_S` seconds: a long download is no silence."""
        bringing = asyncio.ensure_future(_all(map(self._adapters.bring, job.edit.loras)))
        while not (await asyncio.wait([bringing], timeout=ADVANCE_S))[0]:
            advance()
        return tuple(bringing.result())

    async def _pictures(self, job: Job) -> list[ReadPicture]:
        async def one(ref: PictureRef) -> ReadPicture:
            data = await self._bytes(job, ref)
            return await asyncio.to_thread(read_picture, data, field=ref.field, limits=self._limits)

        return await _all(map(one, job.edit.pictures))

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


@contextmanager
def _timed(stage: Stage, timings_s: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings_s[stage] = time.perf_counter() - started


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    return await asyncio.gather(*work)
