"""What a LoRA is, for people: its layout, ranks, what of the model it changes, and why it would be refused."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from darkroom.errors import LoraError
from darkroom.lora.convert import read_scales
from darkroom.lora.header import Header, quoted
from darkroom.lora.keys import Kind
from darkroom.lora.modules import Modules
from darkroom.lora.scale import NOTE
from darkroom.lora.survey import Survey, survey

BASES = ("modelspec.architecture", "ss_base_model_version", "base_model", "base_model_name", "ss_sd_model_name")
"""Where trainers note what they trained on, most telling first."""

MOST_PROBLEMS = 10
_LONGEST_BASE = 100

N = TypeVar("N", int, float)

_BLOCK = re.compile(r"transformer_blocks\.\d+\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """layouts: whose names the keys are. kinds: modules changed, by how. ranks, scales, alphas: least and most; scales
    are what changes are multiplied by, alphas the same times the rank; None where only the header is here. coverage:
    modules changed, and those the model has, by name without the block. dtypes: tensors, by what they are stored in.
    base: what it was trained on, where it says. problems: why it would be refused, in words; none if it can be used."""

    layouts: tuple[str, ...]
    kinds: Mapping[Kind, int]
    ranks: tuple[int, int] | None
    scales: tuple[float, float] | None
    alphas: tuple[float, float] | None
    coverage: Mapping[str, tuple[int, int]]
    dtypes: Mapping[str, int]
    tensors: int
    parameters: int
    size_bytes: int
    base: str | None
    problems: tuple[str, ...]

    @property
    def modules(self) -> int:
        return sum(changed for changed, _ in self.coverage.values())


def describe(header: Header, modules: Modules, path: Path | None = None) -> Report:
    """path: of the file, if all of it is here. Never raises for what is in the file: that goes into `problems`."""
    found = survey(header, modules)
    problems = [error.message for error in found.problems]
    scales: Mapping[str, float] = {}
    if path is not None and not problems:
        try:
            with path.open("rb") as file:
                scales = read_scales(file, header, found)
        except LoraError as error:
            problems.append(error.message)
    return Report(
        layouts=found.layouts,
        kinds=Counter(term.kind for term in found.terms),
        ranks=_range(term.rank for term in found.terms if term.rank is not None),
        scales=_range(scales.values()),
        alphas=_range(
            scales[term.module] * term.rank for term in found.terms if term.rank is not None and term.module in scales
        ),
        coverage=_coverage(found, modules),
        dtypes=Counter(entry.dtype for entry in header.entries.values()),
        tensors=len(header.entries),
        parameters=sum(entry.parameters for entry in header.entries.values()),
        size_bytes=header.size_bytes,
        base=_base(header.metadata),
        problems=_first(problems),
    )


def _first(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MOST_PROBLEMS
    return (*problems[:MOST_PROBLEMS], f"and {more} more") if more > 0 else tuple(problems)


def _range(values: Iterable[N]) -> tuple[N, N] | None:
    found = tuple(values)
    return (min(found), max(found)) if found else None


def _coverage(found: Survey, modules: Modules) -> dict[str, tuple[int, int]]:
    changed = Counter(_BLOCK.sub("", module) for module in {term.module for term in found.terms})
    whole = Counter(_BLOCK.sub("", module) for module in modules.names)
    return {name: (changed[name], whole[name]) for name in whole if name in changed}


def _base(metadata: Mapping[str, str]) -> str | None:
    try:
        note = json.loads(metadata.get(NOTE, "{}"))
    except (ValueError, RecursionError):
        note = {}
    noted = note.get("transformer.base_model_name_or_path") if isinstance(note, dict) else None
    told = [metadata.get(name) for name in BASES] + [noted if isinstance(noted, str) else None]
    base = next((base for base in told if base and base != "None"), None)
    return base if base is None or (base.isprintable() and len(base) <= _LONGEST_BASE) else quoted(base)
