"""What a LoRA can change: the model's modules, under every name that files have for them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from darkroom.checkpoint.layout import PARTS, Component
from darkroom.checkpoint.tensors import needed_tensors

PREFIXES = MappingProxyType(
    {
        "base_model.model.": "PEFT",
        "model.diffusion_model.": "ComfyUI",
        "diffusion_model.": "ComfyUI",
        "transformer.": "diffusers",
        "pipe.dit.": "DiffSynth",
    }
)
"""What stands before a module's published name, and whose it is. There may be several, one after the other."""

FLAT_PREFIXES = MappingProxyType({"lora_unet_": "kohya", "lycoris_": "LyCORIS"})
"""Before a module's published name with its dots made underscores."""

BARE = "bare"

_FUSED = MappingProxyType(
    {
        "to_qkv": ("to_q", "to_k", "to_v"),
        "qkv": ("to_q", "to_k", "to_v"),
        "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
        "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj"),
    }
)
"""Trained as one matrix, which has the rows of each of these in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What a path in a file leads to. modules: published names, several for the parts of a fused one."""

    layout: str
    path: str
    modules: tuple[str, ...]


class Modules:
    """A transformer's modules by their published names. shapes: of its tensors, as `needed_tensors` has them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.names = tuple(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
        self._paths = {name: (name,) for name in self.names} | dict(_fused_paths(self.names))
        self._flat = {path.replace(".", "_"): path for path in self._paths}
        if len(self._flat) < len(self._paths):
            raise ValueError("two modules have the same name once dots are underscores")

    @property
    def digest(self) -> str:
        """Of names and shapes: what fits one model fits another of the same."""
        return hashlib.sha256(repr(sorted(self.shapes.items())).encode()).hexdigest()[:12]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Modules":
        """Of the transformer with this config.json. Raises `BadCheckpoint`."""
        component = Component(name="transformer", class_name=PARTS["transformer"], config=config, tensors={})
        return cls(needed_tensors(component))

    def find(self, path: str) -> Place | None:
        """None where the model has no such module."""
        for prefix, layout in FLAT_PREFIXES.items():
            if path.startswith(prefix):
                dotted = self._flat.get(path.removeprefix(prefix))
                return None if dotted is None else Place(layout=layout, path=dotted, modules=self._paths[dotted])
        layout = BARE
        while found := next((prefix for prefix in PREFIXES if path.startswith(prefix)), None):
            path, layout = path.removeprefix(found), PREFIXES[found] if layout == BARE else layout
        return Place(layout=layout, path=path, modules=self._paths[path]) if path in self._paths else None

    def is_parameter(self, key: str) -> bool:
        """Whether a key names a tensor of the model itself."""
        path, _, leaf = key.rpartition(".")
        place = self.find(path)
        return place is not None and any(f"{module}.{leaf}" in self.shapes for module in place.modules)


def _fused_paths(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    parents = dict.fromkeys(name.rpartition(".")[0] for name in names if name.endswith(".to_q"))
    return {
        f"{parent}.{fused}": tuple(f"{parent}.{part}" for part in parts)
        for parent in parents
        for fused, parts in _FUSED.items()
    }
