"""From a file in any layout to the one canonical form.

A safetensors file with published module names: `<module>.lora_A.weight` and `.lora_B.weight`, LoHa's and LoKr's factors
(`.hada_w1_a` …, `.lokr_w1` …), differences of weight and bias (`.diff`, `.diff_b`). Values are those of the source, bit
for bit, 8-bit floats as bfloat16; the scales stand beside them in the header. Same source, same bytes.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from darkroom.checkpoint.weights import BITS
from darkroom.edit import Strengths, add_strengths
from darkroom.errors import LoraNotFinite, LoraTruncated
from darkroom.lora.header import Header, quoted, read_header
from darkroom.lora.keys import Kind
from darkroom.lora.modules import Modules
from darkroom.lora.scale import PeftNote, scale_of
from darkroom.lora.survey import Survey, survey
from darkroom.lora.term import Stored
from darkroom.lora.values import keep, kept_dtype, to_number

FORMAT = "darkroom adapter 1"
CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFile:
    """A LoRA of a request, ready to be merged. path: of its canonical form. digest: of the file that was made from."""

    path: Path
    digest: str
    strength: float


def strengths_of(loras: Iterable[AdapterFile]) -> Strengths:
    """The set that these make up."""
    return add_strengths((lora.digest, lora.strength) for lora in loras)


def convert(source: Path, target: Path, modules: Modules) -> None:
    """Write `source` to `target` in the canonical form. `target` is there only once it is whole.

    Raises `LoraError` that names the tensor at fault.
    """
    header = read_header(source)
    found = survey(header, modules)
    found.raise_first()
    with source.open("rb") as file:
        scales = read_scales(file, header, found)
        descriptor, building = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                _write(out, file, header, found, scales)
                out.flush()
                os.fsync(out.fileno())
            Path(building).replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(building).unlink()
            raise


def read_scales(file: BinaryIO, header: Header, found: Survey) -> dict[str, float]:
    """By module; of those whose change is in factors. Raises `LoraError`."""
    numbers = {
        entry.key: to_number(_read(file, header.data_begin + entry.begin, entry.end - entry.begin), entry.dtype)
        for term in found.terms
        for entry in (term.alpha, term.stated_rank)
        if entry is not None
    }
    note = PeftNote.read(header.metadata)
    return {term.module: scale_of(term, numbers, note) for term in found.terms if term.kind != Kind.DIFFERENCE}


def _write(out: BinaryIO, file: BinaryIO, header: Header, found: Survey, scales: Mapping[str, float]) -> None:
    parts = {f"{term.module}.{name}": stored for term in found.terms for name, stored in term.parts.items()}
    # Wide values first, so that each tensor begins at a multiple of its values' size.
    names = sorted(parts, key=lambda name: (-BITS[kept_dtype(parts[name].dtype)], name))
    ordered = {name: parts[name] for name in names}
    values = (piece for stored in ordered.values() for piece in _values(file, header, stored))
    out.writelines(chain((_make_header(ordered, scales),), values))


def _make_header(parts: Mapping[str, Stored], scales: Mapping[str, float]) -> bytes:
    document: dict[str, object] = {
        "__metadata__": {"format": FORMAT, "scales": json.dumps(dict(sorted(scales.items())), separators=(",", ":"))}
    }
    reached = 0
    for name, stored in parts.items():
        dtype = kept_dtype(stored.dtype)
        end = reached + stored.parameters * BITS[dtype] // 8
        document[name] = {"dtype": dtype, "shape": list(stored.shape), "data_offsets": [reached, end]}
        reached = end
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _values(file: BinaryIO, header: Header, stored: Stored) -> Iterator[bytes]:
    for begin in range(stored.begin, stored.end, CHUNK_BYTES):
        raw = _read(file, header.data_begin + begin, min(CHUNK_BYTES, stored.end - begin))
        kept, finite = keep(raw, stored.dtype)
        if not finite:
            raise LoraNotFinite(f"{quoted(stored.key)} has a value that is infinite or not a number; get the file anew")
        yield kept


def _read(file: BinaryIO, begin: int, size_bytes: int) -> bytes:
    file.seek(begin)
    raw = file.read(size_bytes)
    if len(raw) < size_bytes:
        raise LoraTruncated("It was cut short while it was read; get it anew")
    return raw
