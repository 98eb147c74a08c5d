"""What a checkpoint folder holds and what is wrong with it, all at once, from headers alone."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from darkroom.checkpoint.compare import Differences, compare
from darkroom.checkpoint.declaration import Declaration, read_declaration
from darkroom.checkpoint.layout import (
    PARTS,
    Component,
    find_tokenizer,
    read_component,
    read_model_index,
    read_processor,
    read_scheduler,
)
from darkroom.checkpoint.tensors import UNUSED, needed_tensors
from darkroom.errors import BadCheckpoint

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """parameters: in all; kept_parameters: those the engine keeps in memory; dtypes: parameters by the dtype they are
    stored in."""

    name: str
    class_name: str
    files: int
    tensors: int
    parameters: int
    kept_parameters: int
    size_bytes: int
    dtypes: Mapping[str, int]
    config: Mapping[str, Any]
    differences: Differences


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """declared: None where darkroom.json is not sound. problems: what must be mended before the checkpoint can be
    loaded, in words; none if it is whole."""

    folder: Path
    parts: tuple[PartReport, ...]
    declared: Declaration | None
    problems: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def kept_parameters(self) -> int:
        return sum(part.kept_parameters for part in self.parts)

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


def inspect(folder: Path) -> Report:
    """Never raises for what is in the folder: that goes into `problems`."""
    problems: list[str] = []

    def attempt(read: Callable[..., T], *arguments: object) -> T | None:
        try:
            return read(*arguments)
        except BadCheckpoint as error:
            problems.append(error.message)
            return None

    index = attempt(read_model_index, folder)
    components = [attempt(read_component, folder, part, index) for part in PARTS] if index is not None else []
    parts = [attempt(_report, component) for component in components if component is not None]
    for read in (read_scheduler, read_processor, find_tokenizer):
        attempt(read, folder)
    declared = attempt(read_declaration, folder)
    found = tuple(part for part in parts if part is not None)
    problems += [f"{part.name} does not fit its config.json: {part.differences}" for part in found if part.differences]
    return Report(folder=folder, parts=found, declared=declared, problems=tuple(problems))


def _report(component: Component) -> PartReport:
    stored = component.tensors
    kept = {name: tensor for name, tensor in stored.items() if name not in UNUSED}
    dtypes: Counter[str] = Counter()
    for tensor in stored.values():
        dtypes[tensor.dtype] += tensor.parameters
    return PartReport(
        name=component.name,
        class_name=component.class_name,
        files=len({tensor.file for tensor in stored.values()}),
        tensors=len(stored),
        parameters=sum(tensor.parameters for tensor in stored.values()),
        kept_parameters=sum(tensor.parameters for tensor in kept.values()),
        size_bytes=sum(tensor.size_bytes for tensor in stored.values()),
        dtypes=dict(dtypes),
        config=component.config,
        differences=compare(needed_tensors(component), kept),
    )
