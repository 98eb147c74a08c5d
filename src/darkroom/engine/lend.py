"""Weights that lie in host memory and come to the device when they are computed with."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

HOST = torch.device("cpu")


def lend(pieces: Iterable[nn.Module], bring: Callable[[Tensor], Tensor]) -> None:
    """From now on each piece's parameters are brought for a call of it, and let go after. A piece is what is called as
    a whole: a layer, or a block of them.

    bring: from host memory to the device.
    """
    for piece in pieces:
        visit = _Visit(bring)
        piece.register_forward_pre_hook(visit.arrive)
        piece.register_forward_hook(visit.leave, always_call=True)


def lend_from_host(pieces: Iterable[nn.Module], device: torch.device) -> None:
    """`lend`, from memory that a GPU reads at full speed. Copies keep the order of the device's stream, so what
    computes with one waits for it, and nothing else does."""
    pieces = list(pieces)
    if device.type == "cuda":
        for parameter in (parameter for piece in pieces for parameter in piece.parameters()):
            parameter.data = parameter.data.pin_memory()
    lend(pieces, lambda value: value.to(device, non_blocking=True))


class _Visit:
    """What a piece had at home, while it is away."""

    def __init__(self, bring: Callable[[Tensor], Tensor]) -> None:
        self._bring = bring
        self._at_home: list[tuple[nn.Parameter, Tensor]] = []

    def arrive(self, piece: nn.Module, _inputs: Any) -> None:
        self._at_home = [(parameter, parameter.data) for parameter in piece.parameters()]
        for parameter, home in self._at_home:
            parameter.data = self._bring(home)

    def leave(self, _piece: nn.Module, _inputs: Any, _output: Any) -> None:
        for parameter, home in self._at_home:
            parameter.data = home
