"""What is known of the files in the store: which address gave which, which go by a name, which are to stay."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from darkroom.blobs.folder import Folder
from darkroom.edit import LORA_NAME
from darkroom.lora.version import Version

NAME: Final = re.compile(LORA_NAME)

_ADDRESSES: Final = "addresses"
_NAMES: Final = "names"
_PINS: Final = "pins"


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A file that goes by a name, and stays for as long as it does. trigger, scale: None for what the preset of this
    name has."""

    name: str
    digest: str
    source: str
    trigger: str | None = None
    scale: float | None = None


class Index:
    """Small files in a folder, each written whole or not at all. They may outlive what they are about."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def seen(self, url: str) -> Version | None:
        """What this address stood for when it was last asked; its digest is known."""
        values = self._get(_address(url))
        return Version(**values["version"]) if values else None

    def see(self, url: str, version: Version) -> None:
        self._put(_address(url), {"url": url, "version": asdict(version)})

    def addresses(self) -> dict[str, str]:
        """Of each digest an address that gave it."""
        return {values["version"]["digest"]: values["url"] for values in self._all(_ADDRESSES)}

    def installed(self, name: str) -> Installed | None:
        values = self._get(f"{_NAMES}/{name}") if NAME.fullmatch(name) else None
        return Installed(**values) if values else None

    def install(self, installed: Installed) -> None:
        self._put(f"{_NAMES}/{installed.name}", asdict(installed))

    def uninstall(self, name: str) -> None:
        self._folder.delete(f"{_NAMES}/{name}")

    def all_installed(self) -> list[Installed]:
        return [Installed(**values) for values in self._all(_NAMES)]

    def pin(self, digest: str) -> None:
        self._put(f"{_PINS}/{digest}", {"digest": digest})

    def unpin(self, digest: str) -> None:
        self._folder.delete(f"{_PINS}/{digest}")

    def pinned(self) -> frozenset[str]:
        """The digests that are to stay: those pinned, and those that go by a name."""
        pins = {values["digest"] for values in self._all(_PINS)}
        return frozenset(pins | {installed.digest for installed in self.all_installed()})

    def forget(self, digest: str) -> None:
        """The addresses that gave this file, and its pin."""
        self.unpin(digest)
        for values in list(self._all(_ADDRESSES)):
            if values["version"]["digest"] == digest:
                self._folder.delete(_address(values["url"]))

    def _put(self, name: str, values: dict[str, Any]) -> None:
        self._folder.put(name, json.dumps(values, ensure_ascii=False).encode())

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            values: dict[str, Any] = json.loads(self._folder.get(name))
        except FileNotFoundError:
            return None
        return values

    def _all(self, under: str) -> Iterator[dict[str, Any]]:
        for name, _ in self._folder.names(under):
            if values := self._get(name):
                yield values


def _address(url: str) -> str:
    return f"{_ADDRESSES}/{hashlib.sha256(url.encode()).hexdigest()}"
