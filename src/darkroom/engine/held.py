"""A module's parameter in the form the module computes with, taken out, made anew and put in."""

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


def values_of(module: nn.Module, parameter: str) -> Tensor:
    """What was stored, in the dtype computed in. Raises ValueError for float8 whose stored weight is not kept."""
    if isinstance(module, Float8Linear) and parameter == "weight":
        if module.stored is None:
            raise ValueError("the weight is there in float8 alone")
        return module.stored
    (held,) = held_of(module, parameter)
    return held.to_dense() if held.is_mkldnn else held


def hold(module: nn.Module, parameter: str, values: Tensor) -> Held:
    """Other values, in the form this module has them."""
    if parameter == "weight" and isinstance(module, Float8Linear):
        return module.kernels.to_float8(values)
    if parameter == "weight" and isinstance(module, PackedLinear):
        return (pack(values),)
    return (values,)


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
