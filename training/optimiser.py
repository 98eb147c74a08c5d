"""Muon for matrices and convolutions, Adam for the rest, with one state to save."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_MOMENTUM = 0.95


class Optimiser:
    """matrices: trained by Muon, of any shape that flattens to rows × the rest. others: by AdamW without decay."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, matrix_rate: float, other_rate: float
    ) -> None:
        self._matrices = list(matrices)
        self._groups: dict[tuple[int, int], list[int]] = {}
        for place, parameter in enumerate(self._matrices):
            rows, columns = parameter.shape[0], parameter[0].numel()
            self._groups.setdefault((rows, columns), []).append(place)
        self._momenta = [torch.zeros_like(parameter) for parameter in self._matrices]
        self._matrix_rate, self._other_rate = matrix_rate, other_rate
        # It wants some, where there may be none.
        others = [*others] or [nn.Parameter(torch.zeros(1))]
        self._adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self, scale: float) -> None:
        """One update, with the rates times `scale`; forgets the gradients. Matrices without a gradient stay."""
        for group in self._adam.param_groups:
            group["lr"] = self._other_rate * scale
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for (rows, columns), places in self._groups.items():
            self._step_group(
                rows, columns, [place for place in places if self._matrices[place].grad is not None], scale
            )

    @torch.no_grad()
    def _step_group(self, rows: int, columns: int, places: list[int], scale: float) -> None:
        if not places:
            return
        nudges = []
        for place in places:
            gradient, momentum = self._matrices[place].grad, self._momenta[place]
            assert gradient is not None  # noqa: S101 — `step` kept only those with one
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            nudges.append(gradient.lerp(momentum, _MOMENTUM).reshape(rows, columns))
            self._matrices[place].grad = None
        turned = _orthogonal(torch.stack(nudges))
        rate = self._matrix_rate * scale * max(1.0, rows / columns) ** 0.5
        for place, update in zip(places, turned, strict=True):
            parameter = self._matrices[place]
            parameter.sub_(update.reshape(parameter.shape).to(parameter.dtype), alpha=rate)

    def state(self) -> dict[str, Any]:
        return {"momenta": self._momenta, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        for own, kept in zip(self._momenta, state["momenta"], strict=True):
            own.copy_(kept)
        self._adam.load_state_dict(state["adam"])


def _orthogonal(stacked: Tensor) -> Tensor:
    """Each matrix of the stack with its singular values brought near 1, by Newton–Schulz iteration in bfloat16."""
    a, b, c = _NEWTON_SCHULZ
    x = stacked.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    turned: Tensor = x.mT if tall else x
    return turned
