"""The tensors a model needs against those a checkpoint holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.checkpoint.weights import StoredTensor
from darkroom.errors import BadCheckpoint

_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """misshapen: each with the shape stored and the shape needed."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        found = (("missing", self.missing), ("unexpected", self.unexpected), ("of the wrong shape", self.misshapen))
        return "; ".join(
            f"{_some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in found if names
        )

    def raise_for(self, component: str) -> None:
        if self:
            raise BadCheckpoint(f"{component} does not fit its config.json: {self}")


def compare(needed: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor]) -> Differences:
    return Differences(
        missing=tuple(sorted(needed.keys() - stored.keys())),
        unexpected=tuple(sorted(stored.keys() - needed.keys())),
        misshapen=tuple(
            f"{name} ({_sides(stored[name].shape)}, not {_sides(shape)})"
            for name, shape in sorted(needed.items())
            if name in stored and stored[name].shape != shape
        ),
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a single number"
