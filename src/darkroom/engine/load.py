"""From a checkpoint's files to modules on a device: each tensor is read once, to where it stays, in its dtype."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from darkroom.checkpoint.compare import compare
from darkroom.checkpoint.layout import Component
from darkroom.checkpoint.tensors import UNUSED
from darkroom.checkpoint.weights import StoredTensor


class WithoutMemory(TorchFunctionMode):
    """Modules built under it have their parameters on the meta device and their buffers where they belong.

    Layers take the memory of their parameters with `torch.empty` and compute their buffers by other means.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a stored tensor goes: a parameter, or some rows of a fused one."""

    parameter: str
    shape: tuple[int, ...]
    start: int | None = None


def fill(
    module: nn.Module,
    component: Component,
    *,
    device: torch.device,
    dtype: torch.dtype,
    published: Callable[[str], str] = str,
    fused: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    leave: tuple[str, ...] = (),
) -> None:
    """Give every parameter of `module`, built under `WithoutMemory`, its stored value; move its buffers to `device`.

    published: from the module's name of a parameter to the published one. fused: modules whose rows are those of
    several published ones. leave: published prefixes of what is filled apart. Raises `BadCheckpoint` that names tensors
    missing, left over or of the wrong shape.
    """

    def wanted(name: str) -> bool:
        return name not in UNUSED and not name.startswith(leave)

    stored = {name: tensor for name, tensor in component.tensors.items() if wanted(name)}
    places = {name: place for own, place in _places(module, fused) if wanted(name := published(own))}
    compare({name: place.shape for name, place in places.items()}, stored).raise_for(component.name)
    for name, value in _read(stored, device):
        place = places[name]
        if place.start is None:
            _assign(module, place.parameter, value.to(dtype))
        else:
            _rows(module, place, device, dtype).copy_(value)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))
    module.requires_grad_(requires_grad=False).eval()


def _places(module: nn.Module, fused: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, _Place]]:
    for parameter, value in module.named_parameters():
        shape = tuple(value.shape)
        path, _, leaf = parameter.rpartition(".")
        parent, _, own = path.rpartition(".")
        if own not in fused:
            yield parameter, _Place(parameter=parameter, shape=shape)
            continue
        rows = shape[0] // len(fused[own])
        for index, name in enumerate(fused[own]):
            place = _Place(parameter=parameter, shape=(rows, *shape[1:]), start=index * rows)
            yield f"{parent}.{name}.{leaf}", place


def _read(stored: Mapping[str, StoredTensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Values in the dtype they are stored in; those that have a scale multiplied by it, in float32."""
    with ExitStack() as stack:

        @cache
        def open_file(path: Path) -> Any:
            return stack.enter_context(safe_open(path, framework="pt", device=str(device)))

        for name, tensor in stored.items():
            value = open_file(tensor.file).get_tensor(tensor.key)
            if tensor.scale is not None:
                scale = open_file(tensor.scale.file).get_tensor(tensor.scale.key)
                value = value.float() * scale.float().view(-1, *[1] * (value.dim() - 1))
            yield name, value


def _rows(module: nn.Module, place: _Place, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rows of a fused parameter, which gets its memory with its first part."""
    whole = module.get_parameter(place.parameter)
    if whole.is_meta:
        _assign(module, place.parameter, torch.empty(whole.shape, device=device, dtype=dtype))
        whole = module.get_parameter(place.parameter)
    start = place.start or 0
    return whole.data[start : start + place.shape[0]]


def _assign(module: nn.Module, parameter: str, value: Tensor) -> None:
    path, _, leaf = parameter.rpartition(".")
    setattr(module.get_submodule(path), leaf, nn.Parameter(value, requires_grad=False))
