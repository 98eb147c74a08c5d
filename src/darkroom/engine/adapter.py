"""Adapters as tensors: a canonical file loaded as what is to be added to each parameter, and their plain sum."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from darkroom.lora.convert import FORMAT
from darkroom.lora.keys import KIND_OF, Kind


class Change(Protocol):
    """What is added to a parameter, before the request's strength."""

    def delta(self) -> Tensor:
        """In the parameter's shape, float32."""
        ...

    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """scale · b @ a. a: [rank, in], b: [out, rank], as stored."""

    a: Tensor
    b: Tensor
    scale: float

    def delta(self) -> Tensor:
        return self.scale * (self.b.float() @ self.a.float())

    @property
    def size_bytes(self) -> int:
        return self.a.nbytes + self.b.nbytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Hadamard:
    """scale · (w1_a @ w1_b) ∘ (w2_a @ w2_b): LoHa. Each a: [out, rank], each b: [rank, in]."""

    w1: tuple[Tensor, Tensor]
    w2: tuple[Tensor, Tensor]
    scale: float

    def delta(self) -> Tensor:
        return self.scale * (_product(self.w1) * _product(self.w2))

    @property
    def size_bytes(self) -> int:
        return sum(factor.nbytes for factor in (*self.w1, *self.w2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kronecker:
    """scale · w1 ⊗ w2: LoKr. Each is a matrix, or two whose product it is."""

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    scale: float

    def delta(self) -> Tensor:
        return self.scale * torch.kron(_product(self.w1), _product(self.w2))

    @property
    def size_bytes(self) -> int:
        return sum(factor.nbytes for factor in (*self.w1, *self.w2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """scale · value, of the parameter's own shape."""

    value: Tensor
    scale: float

    def delta(self) -> Tensor:
        return self.scale * self.value.float()

    @property
    def size_bytes(self) -> int:
        return self.value.nbytes


Adapter = Mapping[str, tuple[Change, ...]]
"""What is added to each parameter of the transformer, by its published name."""


def load_adapter(path: Path, device: torch.device | str = "cpu") -> Adapter:
    """path: of a file that `darkroom.lora.convert` wrote."""
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is not of the form {FORMAT!r}")
        for name in file.keys():  # noqa: SIM118  not a mapping
            part = next(part for part in KIND_OF if name.endswith(f".{part}"))
            modules[name.removesuffix(f".{part}")][part] = file.get_tensor(name)
    scales = json.loads(metadata["scales"])
    changes: dict[str, list[Change]] = defaultdict(list)
    for module, parts in sorted(modules.items()):
        for parameter, change in _changes(parts, scales.get(module, 1.0)):
            changes[f"{module}.{parameter}"].append(change)
    return {name: tuple(found) for name, found in changes.items()}


def merged_weights(base: Mapping[str, Tensor], adapters: Sequence[tuple[Adapter, float]]) -> dict[str, Tensor]:
    """The parameters that the adapters change, each adapter at its strength: summed in float32 in the order given, and
    rounded once, to the dtype of `base`. What every faster way of merging is held to."""
    merged: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for adapter, _ in adapters for name in adapter):
        total = base[name].float()
        for adapter, strength in adapters:
            for change in adapter.get(name, ()):
                total = total + strength * change.delta()
        merged[name] = total.to(base[name].dtype)
    return merged


def _changes(parts: Mapping[str, Tensor], scale: float) -> list[tuple[str, Change]]:
    found: list[tuple[str, Change]] = []
    kinds = {KIND_OF[part] for part in parts}
    if Kind.LORA in kinds:
        found.append(("weight", LowRank(a=parts["lora_A.weight"], b=parts["lora_B.weight"], scale=scale)))
    if Kind.LOHA in kinds:
        w1, w2 = ((parts[f"hada_{side}_a"], parts[f"hada_{side}_b"]) for side in ("w1", "w2"))
        found.append(("weight", Hadamard(w1=w1, w2=w2, scale=scale)))
    if Kind.LOKR in kinds:
        first, second = (
            tuple(parts[name] for name in (f"lokr_{side}", f"lokr_{side}_a", f"lokr_{side}_b") if name in parts)
            for side in ("w1", "w2")
        )
        found.append(("weight", Kronecker(w1=first, w2=second, scale=scale)))
    for part, parameter, own_scale in (
        ("lora_B.bias", "bias", scale),
        ("diff", "weight", 1.0),
        ("diff_b", "bias", 1.0),
    ):
        if part in parts:
            found.append((parameter, Difference(value=parts[part], scale=own_scale)))
    return found


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    whole = factors[0].float()
    return whole if len(factors) == 1 else whole @ factors[1].float()
