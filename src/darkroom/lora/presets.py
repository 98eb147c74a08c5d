"""The LoRAs that go by a name: the operator's own file comes first, then what the checkpoint brings along, then
Darkroom's table."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    only file that will do, as SHA-256; None for whatever the source has. chosen: what of this the operator's file says.
    file: the checkpoint's own, which is then the source too."""

    name: str
    source: str
    trigger: str
    scale: float
    digest: str | None
    chosen: frozenset[str] = frozenset()
    file: Path | None = None


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
            preset = _preset(name, Table(file.name, values).table(name))
            presets[name] = replace(preset, chosen=frozenset(changed.get(name, ())))
        except BadCard as error:
            raise BadSetting(error.message) from error
    return MappingProxyType(presets)


def with_files(presets: Mapping[str, Preset], files: Mapping[str, Path]) -> Mapping[str, Preset]:
    """The presets beside a checkpoint that brings these files along: they replace the table's, at full strength, and
    never what the operator has named."""
    return MappingProxyType(
        {**presets, **{name: _of_file(name, file, presets.get(name)) for name, file in files.items()}}
    )


def _of_file(name: str, file: Path, below: Preset | None) -> Preset:
    if below is None:
        return Preset(name=name, source=str(file), trigger="", scale=1.0, digest=None, file=file)
    if below.chosen & {"source", "digest"}:
        return below
    scale = below.scale if "scale" in below.chosen else 1.0
    return replace(below, source=str(file), scale=scale, digest=None, file=file)


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
