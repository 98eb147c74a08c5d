"""What an operator does with the LoRAs of a node: look, bring in, name, pin, remove."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from darkroom.errors import BadSetting, LoraNoRoom
from darkroom.lora.header import Header, parse_header, read_header
from darkroom.lora.index import NAME, Installed
from darkroom.lora.library import Library, Named, Opened
from darkroom.lora.presets import MAX_SCALE
from darkroom.lora.remote import Advance

_DIGEST_START: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """name: None for a file that goes by none. digest: None for a preset without a file; installed: whether the file is
    here. size_bytes: with all that was made of it."""

    name: str | None
    source: str
    trigger: str
    scale: float
    digest: str | None
    size_bytes: int
    installed: bool
    pinned: bool


class Shelf:
    """Blocks for the disk, but where it is awaited. Raises `BadSetting` for what can't be done as it was asked for."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def listed(self) -> Iterator[Listed]:
        """The presets in the order of their table, the operator's own by name, then what requests have brought."""
        library = self._library
        kept = {one.digest: one.size_bytes for one in library.store.kept()}
        named = library.all_named()
        pinned, sources = library.index.pinned(), library.index.addresses()
        for one in named:
            yield Listed(
                name=one.name,
                source=one.source,
                trigger=one.trigger,
                scale=one.scale,
                digest=one.digest,
                size_bytes=_size_bytes(one, kept),
                installed=one.file is not None or one.digest in kept,
                pinned=one.digest in pinned,
            )
        digests = {one.digest for one in named}
        for digest, size_bytes in kept.items():
            if digest not in digests:
                yield Listed(
                    name=None,
                    source=sources.get(digest, ""),
                    trigger="",
                    scale=1.0,
                    digest=digest,
                    size_bytes=size_bytes,
                    installed=True,
                    pinned=digest in pinned,
                )

    async def fetch(self, wanted: str, on_advance: Advance) -> str:
        """Give a preset the file that its source has now; or bring in what an address stands for now, for requests to
        come. The file's digest. Raises `LoraError` too."""
        preset, index = self._library.presets.get(wanted), self._library.index
        if preset is None:
            if "/" not in wanted:
                raise BadSetting(f"there is no preset {wanted!r}; `darkroom loras list` shows them all")
            return (await self._bring(wanted, on_advance)).digest
        if preset.file is not None:
            index.uninstall(wanted)
            return (await self._bring(preset.source, on_advance)).digest
        digest = (await self._bring(preset.source, on_advance)).digest
        if preset.digest not in (None, digest):
            raise BadSetting(f"{wanted}: {preset.source} has the file {digest}; the table wants {preset.digest}")
        before = index.installed(wanted) or Installed(name=wanted, digest=digest, source=preset.source)
        index.install(replace(before, digest=digest, source=preset.source))
        return digest

    async def add(
        self, name: str, source: str, on_advance: Advance, *, scale: float | None, trigger: str | None
    ) -> str:
        """Give a name, a preset's or a new one, the file that `source` (a file, an address) has now. The file's digest.
        Raises `LoraError` too."""
        if not NAME.fullmatch(name):
            raise BadSetting(f"{name!r}: a LoRA's name is of lower-case letters, digits and _")
        if scale is not None and not abs(scale) <= MAX_SCALE:
            raise BadSetting(f"a LoRA's scale must be from -{MAX_SCALE} to {MAX_SCALE}, not {scale:g}")
        digest = (await self._bring(source, on_advance)).digest
        self._library.index.install(Installed(name=name, digest=digest, source=source, trigger=trigger, scale=scale))
        return digest

    def pin(self, wanted: str) -> str:
        """Keep a file whatever the budget says. wanted: a name, a digest or its beginning. Its digest."""
        digest = self._digest(wanted)
        self._library.index.pin(digest)
        return digest

    def unpin(self, wanted: str) -> str:
        digest = self._digest(wanted)
        self._library.index.unpin(digest)
        return digest

    def remove(self, wanted: str) -> str:
        """Take a name away, and its file unless it has another name; or, by its digest, a file that has none."""
        index = self._library.index
        named = index.installed(wanted)
        if named is None and (own := self._library.named(wanted).file):
            raise BadSetting(f"{wanted} is the checkpoint's own, {own}; `darkroom loras add` puts another in its place")
        digest = named.digest if named else self._digest(wanted)
        if named:
            index.uninstall(wanted)
        others = [one.name for one in index.all_installed() if one.digest == digest]
        if others and not named:
            raise BadSetting(f"{digest} goes by the name {', '.join(others)}; remove that")
        if not others:
            index.forget(digest)
            self._library.store.remove(digest)
        return digest

    async def header(self, source: str) -> tuple[Header, Path | None]:
        """Of a file, a name, or what an address stands for now, which only its first bytes are fetched of; and the
        file itself, if it is here. Raises `LoraError` too."""
        path = self._local(source)
        if path is None and (digest := self._library.named(source).digest):
            path = self._library.store.path(digest)
        if path is not None:
            return read_header(path), path
        if (preset := self._library.presets.get(source)) is not None:
            return await self.header(preset.source)
        address = self._library.parse(source, field="address")
        head = await self._library.remote.head(
            await self._library.remote.locate(address, field="address"), field="address"
        )
        assert head is not None  # noqa: S101  nothing was said to be known
        if head.version.size_bytes is None:
            raise BadSetting(f"{source}: its host does not say how large the file is; `darkroom loras fetch` brings it")
        return parse_header(head.data, head.version.size_bytes), None

    async def _bring(self, source: str, on_advance: Advance) -> Opened:
        if path := self._local(source):
            try:
                return await self._library.copy(path, str(path), on_advance)
            except LoraNoRoom as error:
                raise BadSetting(f"{error.message}; DARKROOM_LORAS_GB is how much it may hold") from error
        address = self._library.parse(source, field="address")
        version = await self._library.version(address, field="address")
        return await self._library.bring(version, field="address", on_advance=on_advance)

    @staticmethod
    def _local(source: str) -> Path | None:
        """The file that is meant, if it is not an address."""
        path = Path(source).expanduser()
        if path.is_file():
            return path
        if source.startswith(("/", "~", "./", "../")):
            raise BadSetting(f"{source}: there is no such file")
        return None

    def _digest(self, wanted: str) -> str:
        if digest := self._library.named(wanted).digest:
            return digest
        found = [one.digest for one in self._library.store.kept() if one.digest.startswith(wanted)]
        if _DIGEST_START.fullmatch(wanted) and len(found) == 1:
            return found[0]
        raise BadSetting(f"no LoRA here goes by {wanted!r}; `darkroom loras list` shows names and digests")


def _size_bytes(named: Named, kept: Mapping[str, int]) -> int:
    if named.digest is not None and named.digest in kept:
        return kept[named.digest]
    return named.file.stat().st_size if named.file else 0
