"""What the timestep does to the transformer, computed for all steps of a request at once.

A third of the transformer's weights only turn the timestep into shifts, scales and gates. They depend on nothing else,
so each is read once per request instead of once per forward pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockModulation:
    """One block at one step. shift, scale (one added), gate for attention, then the same for the MLP.

    image: [6, rows, dim]; one row for all image tokens, or two: the result's and the references'.
    text: [6, 1, dim].
    """

    image: Tensor
    text: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class StepModulation:
    """All blocks at one step. out: scale (one added) and shift of the output norm, [2, 1, dim]."""

    blocks: tuple[BlockModulation, ...]
    out: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Modulation:
    """All blocks at all steps.

    image: [blocks, 6, timesteps, dim], where a last timestep of zero is added for the references if the model
    has `zero_cond_t`. text: [blocks, 6, steps, dim]. out: [2, steps, dim].
    """

    image: Tensor
    text: Tensor
    out: Tensor
    references_at_zero: bool

    def at(self, step: int) -> StepModulation:
        return StepModulation(
            blocks=tuple(
                BlockModulation(image=self._image_rows(image, step), text=text[:, step, None])
                for image, text in zip(self.image, self.text, strict=True)
            ),
            out=self.out[:, step, None],
        )

    def _image_rows(self, image: Tensor, step: int) -> Tensor:
        if self.references_at_zero:
            return torch.stack([image[:, step], image[:, -1]], dim=1)
        return image[:, step, None]
