"""A module's parameter in the form the module computes with, taken out, made anew and put in."""

import torch
from torch import Tensor, nn

from darkroom.engine.linear import Float8Linear, PackedLinear, pack

Held = tuple[Tensor, ...]
"""A parameter's value, and whatever else belongs to its form."""


def held_of(module: nn.Module, parameter: str) -> Held:
    """As it is now."""
    if isinstance(module, Float8Linear) and parameter == "weight":
        return module.weight, module.scale
    own = getattr(module, parameter)
    return (own.data if isinstance(own, nn.Parameter) else own,)


def home_of(module: nn.Module, parameter: str) -> torch.device:
    """Where it lies while nothing is computed."""
    home: torch.device = getattr(module, parameter).device
    return home


def values_of(module: nn.Module, parameter: str) -> Tensor:
    """What was stored, in the dtype computed in. Raises ValueError for float8 whose stored weight is not kept."""
    if isinstance(module, Float8Linear) and parameter == "weight":
        if module.stored is None:
            raise ValueError("the weight is there in float8 alone")
        return module.stored
    (held,) = held_of(module, parameter)
    return held.to_dense() if held.is_mkldnn else held


def hold(module: nn.Module, parameter: str, values: Tensor) -> Held:
    """Other values, in a form this module computes with."""
    if parameter == "weight" and isinstance(module, Float8Linear):
        return module.kernels.to_float8(values)
    return (values,)


def formed(module: nn.Module, parameter: str, held: Held, *, packed: bool) -> Held:
    """The same values, packed or plain, if this module computes with either. Products may differ by a rounding: which
    of both it is must follow from the edit, not from what came before."""
    if parameter != "weight" or not isinstance(module, PackedLinear) or held[0].is_mkldnn == packed:
        return held
    return (pack(held[0]) if packed else held[0].to_dense(),)


def put(module: nn.Module, parameter: str, held: Held) -> None:
    if isinstance(module, Float8Linear) and parameter == "weight":
        module.weight, module.scale = held
        return
    (value,) = held
    own = getattr(module, parameter)
    if isinstance(own, nn.Parameter):
        own.data = value
    else:
        setattr(module, parameter, value)


def size_bytes(held: Held) -> int:
    return sum(each.numel() * each.element_size() for each in held)
