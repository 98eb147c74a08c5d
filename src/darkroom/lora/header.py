"""The header of a safetensors file, read from its first bytes and trusted in nothing.

Eight bytes of length, little-endian, then JSON: each tensor's dtype, shape and place in the data, which begins right
after. Whoever fetches a file can so tell what is in it before the rest has come.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from darkroom.checkpoint.weights import BITS
from darkroom.errors import LoraHeaderInvalid, LoraNotSafetensors, LoraOverlapping, LoraTruncated

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 * 1024 * 1024
"""LoRAs of this model have some thousand tensors, of a hundred bytes each; trainers' notes come on top."""

_MAX_DIMENSIONS = 8
_MAX_NAME = 512
# Taken for what they look like only where they would be an absurd length: some are the start of a sound one too.
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a pickle of torch's"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"<", "a web page"),
    (b"{", "JSON"),
    (b"version ", "a pointer of Git LFS, not the file itself"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A tensor in a file. dtype: safetensors' word. begin, end: bytes from the start of the data."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """data_begin: where in the file the data begins, in bytes. size_bytes: of the whole file."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_begin: int
    size_bytes: int


def header_bytes(start: bytes) -> int:
    """How many bytes of the file its header takes, with the eight that say so. start: those eight at least.

    Raises `LoraNotSafetensors`, `LoraTruncated`, `LoraHeaderInvalid`.
    """
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) >= LENGTH_BYTES and 2 <= length <= MAX_HEADER_BYTES:
        return LENGTH_BYTES + length
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            raise LoraNotSafetensors(f"It is {what}; a LoRA must be a .safetensors file")
    if len(start) < LENGTH_BYTES:
        raise LoraTruncated(f"It has {len(start)} bytes, too few for a safetensors file; get it anew")
    raise LoraHeaderInvalid(
        f"It is no safetensors file, or a broken one: its header would be {length} bytes long, "
        f"of at most {MAX_HEADER_BYTES}"
    )


def parse_header(head: bytes, size_bytes: int) -> Header:
    """head: the file's first `header_bytes` bytes, or more of it. size_bytes: of the whole file.

    Raises `LoraNotSafetensors`, `LoraTruncated`, `LoraHeaderInvalid`, `LoraOverlapping`, each naming the tensor.
    """
    data_begin = header_bytes(head)
    if min(len(head), size_bytes) < data_begin:
        raise LoraTruncated(f"It ends within its header of {data_begin} bytes; get it anew")
    document = _parse_json(head[LENGTH_BYTES:data_begin])
    metadata = _check_metadata(document.pop("__metadata__", {}))
    entries = {key: _check_entry(key, value) for key, value in document.items()}
    _check_places(entries.values(), size_bytes - data_begin)
    return Header(entries=entries, metadata=metadata, data_begin=data_begin, size_bytes=size_bytes)


def read_header(path: Path) -> Header:
    """Of a file that is here. Raises what `parse_header` does."""
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        head = start + file.read(header_bytes(start) - LENGTH_BYTES)
    return parse_header(head, path.stat().st_size)


def quoted(key: str) -> str:
    """A name out of a stranger's file, for a message."""
    return repr(key if len(key) <= 120 else f"{key[:117]}…")


def _parse_json(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise LoraHeaderInvalid("It is no safetensors file, or a broken one: its header is not JSON")
    try:
        document = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LoraHeaderInvalid(f"Its header is not sound JSON: {str(error)[:120]}") from error
    return dict(document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise LoraHeaderInvalid(f"Its header has {quoted(name)} twice")
        found[name] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LoraHeaderInvalid("Its header's __metadata__ is not a table of strings")
    return metadata


def _check_entry(key: str, value: Any) -> Entry:
    def refuse(why: str) -> NoReturn:
        raise LoraHeaderInvalid(f"Its header is not sound: {quoted(key)} {why}")

    if len(key) > _MAX_NAME:
        refuse(f"is a name of {len(key)} characters")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        refuse("has not just dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        refuse(f"has the dtype {quoted(str(dtype))}, which is unknown")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        refuse("has no sound shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse("has no sound data_offsets")
    begin, end = offsets
    if math.prod(shape) * BITS[dtype] != (end - begin) * 8:
        refuse(f"is {dtype} of shape {shape}, which does not take the {end - begin} bytes it has")
    return Entry(key=key, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _check_places(entries: Iterable[Entry], data_bytes: int) -> None:
    reached = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < reached:
            raise LoraOverlapping(f"Its header is not sound: {quoted(entry.key)} overlaps the tensor before it")
        if entry.begin > reached:
            raise LoraHeaderInvalid(f"Its header is not sound: nothing claims the bytes before {quoted(entry.key)}")
        reached = entry.end
    if reached > data_bytes:
        raise LoraTruncated(f"It is cut off: {reached} bytes of data are promised, {data_bytes} are there; get it anew")
    if reached < data_bytes:
        raise LoraHeaderInvalid(f"Its header is not sound: nothing claims the last {data_bytes - reached} bytes")
