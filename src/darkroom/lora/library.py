"""The LoRAs that a node has, and how more come in.

At admission each LoRA of a request is held to one file: a preset to the one installed under its name, an address to
what it stands for now. The worker then opens just that one, or fails the job.
"""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from darkroom.edit import LoraRef
from darkroom.errors import AdapterUnavailable, LoraChanged, LoraForbidden, LoraNoRoom, LoraUnreachable
from darkroom.fetch.transport import unfit
from darkroom.lora.address import Address, Link
from darkroom.lora.index import Index
from darkroom.lora.presets import Preset
from darkroom.lora.remote import Advance, Remote
from darkroom.lora.store import Incoming, NoRoom, Store
from darkroom.lora.version import Version

RESOLVE_S: Final = 10.0
"""How long a submit waits for the hosts of its LoRAs."""
DOWNLOAD_S: Final = 1800.0

_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))

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


class Library:
    """Safe to use from any number of threads, event loops and processes at once.

    fetch_allow: the setting of that name.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        remote: Remote,
        presets: Mapping[str, Preset],
        fetch_allow: Sequence[str],
    ) -> None:
        self.store = store
        self.index = index
        self.remote = remote
        self.presets = presets
        self._fetch_allow = fetch_allow

    def check(self, asked: AskedLora) -> None:
        """Refuse what can be known without the network. Raises `AdapterUnavailable` for a preset that is not
        installed, and what `parse` does."""
        if asked.is_preset:
            self._preset(asked)
        else:
            self.parse(asked.named, field=asked.field)

    def has(self, preset: str) -> bool:
        """Whether it is installed."""
        installed = self.index.installed(preset)
        return installed is not None and self.store.path(installed.digest) is not None

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
            field = next(one.field for one, task in zip(asked, tasks, strict=True) if task.cancelled())
            raise LoraUnreachable(
                f"{field}: it was not known within {RESOLVE_S:g} s what the address stands for; try again, or have its "
                "file fetched on the server beforehand: darkroom loras fetch ADDRESS",
                field=field,
            ) from None
        return tuple(task.result() for task in tasks)

    async def open(self, ref: LoraRef, on_advance: Advance = lambda *_: None) -> Opened:
        """The very file that the reference was held to, fetched if it is not here. Raises `LoraError`."""
        if ref.url is None:
            path = self.store.path(ref.digest) if ref.digest else None
            if path is None or ref.digest is None:
                raise LoraChanged(f"{ref.field}: the LoRA {ref.name} is no longer on this server", field=ref.field)
            return Opened(path=path, digest=ref.digest)
        version = Version(url=ref.url, name=ref.name, validator=ref.validator, digest=ref.digest)
        return await self.bring(version, field=ref.field, on_advance=on_advance)

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
            async with asyncio.timeout(DOWNLOAD_S), self.store.incoming(version.url) as incoming:
                if found := self._here(version):
                    return found

                def begin(now: Version) -> None:
                    # With a digest it is the bytes that count, whatever the host calls them by now.
                    if version.digest is None and version.validator not in (None, now.validator):
                        raise _changed(field)
                    self.make_room(now.size_bytes or 0)

                came = await self.remote.download(
                    version.url, incoming, field=field, on_begin=begin, on_advance=on_advance
                )
                if version.digest not in (None, incoming.digest):
                    raise _changed(field)
                return await asyncio.to_thread(self._keep, incoming, version.url, came)
        except TimeoutError:
            raise LoraUnreachable(f"{field}: the file did not arrive within {DOWNLOAD_S:g} s", field=field) from None
        except (NoRoom, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_SPACE:
                raise
            raise LoraNoRoom(f"{field}: this server's store has no room for the file", field=field) from error

    def make_room(self, size_bytes: int) -> None:
        """Raises `NoRoom`."""
        for digest in self.store.make_room(size_bytes, pinned=self.index.pinned()):
            self.index.forget(digest)
            log.info("LoRA evicted", digest=digest)

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
        installed = self.index.installed(asked.named)
        if installed is None or not self.has(asked.named):
            raise AdapterUnavailable(
                f"{asked.field}: the LoRA {asked.named} is not installed on this server; its operator can do so: "
                f"darkroom loras fetch {asked.named}",
                field=asked.field,
            )
        strength = self.scale(asked.named) if asked.strength is None else asked.strength
        return LoraRef(field=asked.field, name=asked.named, strength=strength, digest=installed.digest)

    def scale(self, name: str) -> float:
        """The strength of a preset unless a request gives one."""
        installed, preset = self.index.installed(name), self.presets.get(name)
        if installed and installed.scale is not None:
            return installed.scale
        return preset.scale if preset else 1.0

    def _here(self, version: Version) -> Opened | None:
        digest = version.digest
        if digest is None and version.validator is not None and (seen := self.index.seen(version.url)):
            digest = seen.digest if seen.validator == version.validator else None
        path = self.store.path(digest) if digest else None
        return Opened(path=path, digest=digest) if path and digest else None

    def _keep(self, incoming: Incoming, url: str, came: Version) -> Opened:
        self.make_room(incoming.size_bytes)
        path = self.store.keep(incoming)
        # In this order: a kill in between leaves a file that is found by its digest, and an address to ask again.
        self.index.see(url, replace(came, digest=incoming.digest))
        return Opened(path=path, digest=incoming.digest)


def _changed(field: str) -> LoraChanged:
    return LoraChanged(
        f"{field}: its address has another file now than when the request was accepted; send the request again",
        field=field,
    )
