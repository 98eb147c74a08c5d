"""What a module's change is multiplied by: its alpha over its rank, from wherever the file has them.

A single number beside the matrices (`alpha`) rules, else what PEFT notes in the header, else nothing is scaled. Kohya's
note of alpha in the header (`ss_network_alpha`) goes unread, as everywhere: its files have the numbers.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.errors import LoraHeaderInvalid, LoraInconsistent, LoraNotFinite, LoraUnsupported
from darkroom.lora.header import quoted
from darkroom.lora.term import Term

NOTE = "lora_adapter_metadata"
"""Diffusers' name in the header for the adapter's PEFT config."""

_OF_TRANSFORMER = "transformer."
_PLAIN = re.compile(r"[\w.]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class PeftNote:
    """ranks, alphas: of modules that have their own, by the end of their name, or with ^ before it by the whole."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    by_root: bool

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> "PeftNote | None":
        """None where there is none that tells a scale. Raises `LoraHeaderInvalid`, `LoraUnsupported`."""
        if NOTE not in metadata:
            return None
        try:
            note = _own(json.loads(metadata[NOTE]))
            alpha = note.get("lora_alpha", note.get("alpha"))
            if alpha is None or "r" not in note:
                return None
            return cls(
                rank=_rank(note["r"]),
                alpha=_finite(alpha),
                ranks=_patterns({key: _rank(value) for key, value in (note.get("rank_pattern") or {}).items()}),
                alphas=_patterns({key: _finite(value) for key, value in (note.get("alpha_pattern") or {}).items()}),
                by_root=bool(note.get("use_rslora")),
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise LoraHeaderInvalid(f"Its header's {NOTE} is not sound: {str(error)[:120]}") from error

    def scale(self, path: str) -> float:
        rank = _own_or(self.ranks, path, self.rank)
        return _own_or(self.alphas, path, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


def scale_of(term: Term, numbers: Mapping[str, float], note: PeftNote | None) -> float:
    """numbers: the single numbers of the file, by their keys.

    Raises `LoraInconsistent` where the file states another rank than its matrices have; `LoraNotFinite`.
    """
    if term.stated_rank is not None and numbers[term.stated_rank.key] != term.rank:
        stated = numbers[term.stated_rank.key]
        raise LoraInconsistent(f"{quoted(term.stated_rank.key)} says rank {stated:g}; the matrices have {term.rank}")
    if term.alpha is not None:
        scale = numbers[term.alpha.key] / term.rank if term.rank is not None else 1.0
        if not math.isfinite(scale):
            raise LoraNotFinite(f"{quoted(term.alpha.key)} is not a finite number; get the file anew")
        return scale
    return note.scale(term.path) if note is not None else 1.0


def _own(note: Mapping[str, Any]) -> dict[str, Any]:
    """Of the transformer's adapter: with a pipeline's prefix, or, if a transformer saved it alone, without."""
    prefixed = {
        key.removeprefix(_OF_TRANSFORMER): value for key, value in note.items() if key.startswith("transformer.")
    }
    return prefixed or dict(note)


def _patterns(found: dict[str, Any]) -> dict[str, Any]:
    """PEFT takes them for regular expressions; files have names, and only those are taken."""
    plain = {key.removesuffix("$").replace("\\.", "."): value for key, value in found.items()}
    for key in plain:
        if not _PLAIN.fullmatch(key.removeprefix("^")):
            raise LoraUnsupported(
                f"Its header gives {quoted(key)} a rank or alpha of its own, which is not a plain name"
            )
    return plain


def _own_or(patterns: Mapping[str, float], path: str, default: float) -> float:
    for pattern, value in patterns.items():
        name = pattern.removeprefix("^")
        if path == name or (name == pattern and path.endswith(f".{name}")):
            return value
    return default


def _rank(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no rank")
    return value


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no alpha")
    return float(value)
