"""The table of the LoRAs that go by a name."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from darkroom.catalogue.table import Table
from darkroom.errors import BadCard, BadSetting, InvalidField, LoraError
from darkroom.lora.address import parse_address
from darkroom.lora.index import NAME

TABLE: Final = Path(__file__).parent / "presets.toml"
MAX_SCALE: Final = 4
"""The strongest there is, either way."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """source: an address, or a file's absolute path. trigger: what the prompt has to say, "" for nothing. digest: the
    only file that will do, as SHA-256; None for whatever the source has."""

    name: str
    source: str
    trigger: str
    scale: float
    digest: str | None

    @property
    def is_local(self) -> bool:
        return self.source.startswith("/")


def read_presets(own: Path | None) -> Mapping[str, Preset]:
    """By name, in the order of the table. own: the operator's file, whose keys win, and which may add names.

    Raises `BadSetting` that names file and key.
    """
    values = _toml(TABLE)
    changed = _toml(own) if own else {}
    for name, value in changed.items():
        below = values.get(name, {"scale": Decimal(1)})
        # Another file than the one that the digest is of.
        below = {key: kept for key, kept in below.items() if key != "digest" or "source" not in value}
        values[name] = below | value if isinstance(value, dict) else value
    presets = {}
    for name in values:
        file = own if own and name in changed else TABLE
        try:
            presets[name] = _preset(name, Table(file.name, values).table(name))
        except BadCard as error:
            raise BadSetting(error.message) from error
    return MappingProxyType(presets)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise BadSetting(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise BadSetting(f"{path} is not TOML: {error}") from error


def _preset(name: str, table: Table) -> Preset:
    preset = Preset(
        name=name,
        source=_source(table),
        trigger=table.text("trigger") if table.has("trigger") else "",
        scale=float(table.real("scale")),
        digest=table.text("digest") if table.has("digest") else None,
    )
    table.end()
    if not NAME.fullmatch(name):
        table.refuse("source", "the name above it must be lower-case letters, digits and _")
    if preset.digest is not None and not _DIGEST.fullmatch(preset.digest):
        table.refuse("digest", "must be a SHA-256 in lower-case hexadecimal digits")
    if not abs(preset.scale) <= MAX_SCALE:
        table.refuse("scale", f"must be from -{MAX_SCALE} to {MAX_SCALE}")
    return preset


def _source(table: Table) -> str:
    source = table.text("source")
    if source.startswith("~"):
        return str(Path(source).expanduser())
    if not source.startswith("/"):
        try:
            parse_address(source, field="source")
        except (InvalidField, LoraError) as error:
            table.refuse("source", error.message)
    return source
