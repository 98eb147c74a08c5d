"""The LoRAs that a node has, and how more come in.

At admission each LoRA of a request is held to one file: a preset to the one installed under its name, or else to the
one that the checkpoint brings along, an address to what it stands for now. The worker then opens just that one, or
fails the job.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from darkroom.disk import NO_SPACE
from darkroom.edit import LoraRef
from darkroom.errors import AdapterUnavailable, LoraChanged, LoraError, LoraForbidden, LoraNoRoom, LoraUnreachable
from darkroom.fetch.transport import unfit
from darkroom.lora.address import Address, Link, check_name
from darkroom.lora.base import Base
from darkroom.lora.header import header_bytes
from darkroom.lora.index import Index, Installed
from darkroom.lora.presets import Preset, with_files
from darkroom.lora.remote import TELLING_BYTES, Advance, Remote
from darkroom.lora.store import Incoming, NoRoom, Store
from darkroom.lora.version import Version

RESOLVE_S: Final = 10.0
"""How long a submit waits for the hosts of its LoRAs."""
DOWNLOAD_S: Final = 1800.0
COPY_BYTES: Final = 2**20


log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedLora:
    """As a request has it: what is named is a preset, else an address. strength: None for the preset's own."""

    field: str
    named: str
    is_preset: bool
    strength: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A file of the store, used just now and so there for a while (`FRESH_S` of the store)."""

    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What goes by a name: the operator's file, else the checkpoint's own (`file`), else the one of the table.

    source: "" if nothing does. digest: None for a preset whose file has not been fetched yet.
    """

    name: str
    source: str
    trigger: str
    scale: float
    digest: str | None = None
    file: Path | None = None


class Library:
    """Safe to use from any number of threads, event loops and processes at once.

    presets: without the checkpoint's own, which are looked up in `base` time and again, as it may still be on its way.
    fetch_allow: the setting of that name.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        remote: Remote,
        base: Base,
        presets: Mapping[str, Preset],
        fetch_allow: Sequence[str],
    ) -> None:
        self.store = store
        self.index = index
        self.remote = remote
        self._base = base
        self._presets = presets
        self._fetch_allow = fetch_allow

    @property
    def presets(self) -> Mapping[str, Preset]:
        """By name: the table's in its order, then others."""
        return with_files(self._presets, self._base.loras)

    def check(self, asked: AskedLora) -> None:
        """Refuse what can be known without the network. Raises `AdapterUnavailable` for a preset that is not
        installed, and what `parse` does."""
        if asked.is_preset:
            self._preset(asked)
        else:
            self.parse(asked.named, field=asked.field)

    def has(self, preset: str) -> bool:
        """Whether it is installed."""
        return self._is_here(self.named(preset))

    def named(self, name: str) -> Named:
        """What goes by this name; a name that nothing goes by has no source."""
        return self._named(name, self.presets.get(name), self.index.installed(name))

    def all_named(self) -> list[Named]:
        """The presets in the order of their table, then the operator's own."""
        presets, installed = self.presets, {one.name: one for one in self.index.all_installed()}
        return [self._named(name, presets.get(name), installed.get(name)) for name in {**presets, **installed}]

    def parse(self, text: str, *, field: str) -> Address:
        """Raises `InvalidField`, `LoraNotSafetensors`, `LoraForbidden`."""
        address = self.remote.parse(text, field=field)
        if isinstance(address, Link) and (problem := unfit(address.url, self._fetch_allow)):
            raise LoraForbidden(f"{field}: the address {problem}", field=field)
        return address

    async def resolve(self, asked: Sequence[AskedLora]) -> tuple[LoraRef, ...]:
        """Each held to one file; waits for the network for `RESOLVE_S` at most.

        Raises what `check` does, and `LoraError`.
        """
        tasks: list[asyncio.Task[LoraRef]] = []
        try:
            async with asyncio.timeout(RESOLVE_S), asyncio.TaskGroup() as group:
                tasks += [group.create_task(self._resolve(one)) for one in asked]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except TimeoutError:
            slow = (one.field for one, task in zip(asked, tasks, strict=True) if task.cancelled())
            field = next(slow, asked[-1].field)
            raise LoraUnreachable(
                f"{field}: it was not known within {RESOLVE_S:g} s what the address stands for; try again, or have its "
                "file fetched on the server beforehand: darkroom loras fetch ADDRESS",
                field=field,
            ) from None
        return tuple(task.result() for task in tasks)

    def is_here(self, ref: LoraRef) -> bool:
        """Whether `open` needs no network for it."""
        return ref.url is None or self._here(_version(ref, ref.url)) is not None

    async def open(self, ref: LoraRef, on_advance: Advance = lambda *_: None) -> Opened:
        """The very file that the reference was held to, fetched if it is not here. Raises `LoraError`."""
        if ref.url is None:
            if ref.digest and (path := self.store.path(ref.digest)):
                return Opened(path=path, digest=ref.digest)
            file = self._base.loras.get(ref.name)
            if file is not None and (opened := await self.copy(file, ref.field, on_advance)).digest == ref.digest:
                return opened
            raise LoraChanged(f"{ref.field}: the LoRA {ref.name} is no longer on this server", field=ref.field)
        return await self.bring(_version(ref, ref.url), field=ref.field, on_advance=on_advance)

    async def version(self, address: Address, *, field: str) -> Version:
        """What an address stands for now; where its host is silent and the file is here, what it stood for last.

        Raises `InvalidField`, `LoraError`.
        """
        located = await self.remote.locate(address, field=field)
        url = self.remote.url(located)
        seen = self.index.seen(url)
        try:
            found = await self.remote.look(located, field=field, known=seen.validator if seen else None)
        except LoraUnreachable:
            if seen is None or self._here(seen) is None:
                raise
            log.warning("a LoRA's host is silent, its file is taken as it was", lora=seen.name)
            return seen
        if found is None:
            assert seen is not None  # noqa: S101  only what was seen can be unchanged
            return seen
        if found.digest is not None:
            await asyncio.to_thread(self.index.see, url, found)
        return found

    async def bring(self, version: Version, *, field: str, on_advance: Advance = lambda *_: None) -> Opened:
        """The file of this version, fetched if it is not here; whoever else wants it waits for the one download.

        Raises `LoraChanged` if it is to be had no more, `LoraNoRoom`, `LoraError`.
        """
        if found := self._here(version):
            return found
        try:
            with _room(field):
                return await self._fetch(version, field, on_advance)
        except TimeoutError:
            raise LoraUnreachable(f"{field}: the file did not arrive within {DOWNLOAD_S:g} s", field=field) from None

    async def copy(self, file: Path, field: str, on_advance: Advance = lambda *_: None) -> Opened:
        """A file of this machine into the store, if it will do. field: what errors name. Raises `LoraError`."""
        check_name(file.name, field=field)
        with _room(field):
            size_bytes = self._admit(file, field)
            async with self.store.incoming(_local(file)) as incoming:
                with file.open("rb") as data:
                    while chunk := await asyncio.to_thread(data.read, COPY_BYTES):
                        await asyncio.to_thread(incoming.write, chunk)
                        on_advance(incoming.size_bytes, size_bytes)
                path = await asyncio.to_thread(self.store.keep, incoming)
                return Opened(path=path, digest=incoming.digest)

    def make_room(self, size_bytes: int) -> None:
        """Raises `NoRoom`."""
        for digest in self.store.make_room(size_bytes, pinned=self.index.pinned()):
            self.index.forget(digest)
            log.info("LoRA evicted", digest=digest)

    async def _fetch(self, version: Version, field: str, on_advance: Advance) -> Opened:
        async with asyncio.timeout(DOWNLOAD_S), self.store.incoming(version.url) as incoming:
            if found := self._here(version):
                return found

            def begin(now: Version) -> None:
                # With a digest it is the bytes that count, whatever the host calls them by now.
                if version.digest is None and version.validator not in (None, now.validator):
                    raise _changed(field)
                self.make_room(max(0, (now.size_bytes or 0) - incoming.size_bytes))

            came = await self.remote.download(version.url, incoming, field=field, on_begin=begin, on_advance=on_advance)
            if version.digest not in (None, incoming.digest):
                incoming.restart()
                raise _changed(field)
            return await asyncio.to_thread(self._keep, incoming, version.url, came)

    async def _resolve(self, asked: AskedLora) -> LoraRef:
        if asked.is_preset:
            return self._preset(asked)
        field = asked.field
        version = await self.version(self.parse(asked.named, field=field), field=field)
        if not version.held:
            # Nothing but the file itself says which it is.
            opened = await self.bring(version, field=field)
            version = replace(version, digest=opened.digest)
        return version.ref(field=field, strength=1.0 if asked.strength is None else asked.strength)

    def _preset(self, asked: AskedLora) -> LoraRef:
        named = self.named(asked.named)
        if not self._is_here(named):
            raise AdapterUnavailable(
                f"{asked.field}: the LoRA {asked.named} is not installed on this server; its operator can install it: "
                f"darkroom loras fetch {asked.named}",
                field=asked.field,
            )
        strength = named.scale if asked.strength is None else asked.strength
        return LoraRef(field=asked.field, name=asked.named, strength=strength, digest=named.digest)

    def _named(self, name: str, preset: Preset | None, installed: Installed | None) -> Named:
        preset = preset or Preset(name=name, source="", trigger="", scale=1.0, digest=None)
        file = preset.file
        if file and (installed is None or installed.source == self._table_source(name)):
            installed = Installed(name=name, digest=self._digest(file), source=preset.source)
        else:
            file = None
        if installed is None:
            return Named(name=name, source=preset.source, trigger=preset.trigger, scale=preset.scale)
        return Named(
            name=name,
            source=installed.source,
            trigger=preset.trigger if installed.trigger is None else installed.trigger,
            scale=preset.scale if installed.scale is None else installed.scale,
            digest=installed.digest,
            file=file,
        )

    def _table_source(self, name: str) -> str | None:
        preset = self._presets.get(name)
        return preset.source if preset else None

    def _is_here(self, named: Named) -> bool:
        return named.file is not None or (named.digest is not None and self.store.path(named.digest) is not None)

    def _digest(self, file: Path) -> str:
        """Of a file of this machine, which is read only if it is not known from last time."""
        stat, url = file.stat(), _local(file)
        validator = f"{stat.st_size} {stat.st_mtime_ns}"
        if (seen := self.index.seen(url)) and seen.validator == validator and seen.digest:
            return seen.digest
        with file.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        # Where nothing can be written, it is read again the next time.
        with suppress(OSError):
            self.index.see(url, Version(url=url, name=file.name, validator=validator, digest=digest))
        return digest

    def _admit(self, file: Path, field: str) -> int:
        """Its size in bytes, once it is sure that it will do and there is room. Raises `LoraError`, `NoRoom`."""
        size_bytes = file.stat().st_size
        with file.open("rb") as data:
            start = data.read(TELLING_BYTES)
            try:
                head = start + data.read(max(0, header_bytes(start) - len(start)))
            except LoraError as error:
                raise error.at(field) from error
        self.remote.check(head, size_bytes, field=field)
        self.make_room(size_bytes)
        return size_bytes

    def _here(self, version: Version) -> Opened | None:
        digest = version.digest
        if digest is None and version.validator is not None and (seen := self.index.seen(version.url)):
            digest = seen.digest if seen.validator == version.validator else None
        path = self.store.path(digest) if digest else None
        return Opened(path=path, digest=digest) if path and digest else None

    def _keep(self, incoming: Incoming, url: str, came: Version) -> Opened:
        self.make_room(0)
        path = self.store.keep(incoming)
        # In this order: a kill in between leaves a file that is found by its digest, and an address to ask again.
        self.index.see(url, replace(came, digest=incoming.digest))
        return Opened(path=path, digest=incoming.digest)


def _version(ref: LoraRef, url: str) -> Version:
    return Version(url=url, name=ref.name, validator=ref.validator, digest=ref.digest)


def _local(file: Path) -> str:
    """What a file of this machine is known by where others are by their address."""
    return f"file:{file}"


@contextmanager
def _room(field: str) -> Iterator[None]:
    """Raises `LoraNoRoom` where the store, or the disk, is full."""
    try:
        yield
    except (NoRoom, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SPACE:
            raise
        raise LoraNoRoom(f"{field}: this server's store has no room for the file", field=field) from error


def _changed(field: str) -> LoraChanged:
    return LoraChanged(
        f"{field}: its address has another file now than when the request was accepted; send the request again",
        field=field,
    )
