"""Rotary positions of the transformer's joint sequence [text, result, reference 1, reference 2, …].

A picture's tokens sit on a grid centred on (0, 0); the frame axis counts pictures, the result being 0. Text tokens
lie on the diagonal, from just past the widest picture's edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

THETA = 10000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """Rotations of a sequence. cos, sin: [tokens, head_dim / 2], float32."""

    cos: Tensor
    sin: Tensor

    @property
    def tokens(self) -> int:
        return len(self.cos)

    def rows(self, start: int, stop: int) -> "Rope":
        return Rope(cos=self.cos[start:stop], sin=self.sin[start:stop])


def joint_rope(
    text_tokens: int, grids: Sequence[tuple[int, int]], axes_dims: Sequence[int], device: torch.device
) -> Rope:
    """grids: height and width of each picture in tokens, the result first. axes_dims: channels of frame, height, width.

    Made on the CPU, so that every device turns by the same angles.
    """
    start = max(max(height // 2, width // 2) for height, width in grids)
    text = (torch.arange(text_tokens) + start)[:, None].expand(-1, 3)
    positions = torch.cat([text, *(_grid_positions(frame, *grid) for frame, grid in enumerate(grids))])
    angles = torch.cat(
        [positions[:, axis, None] * _frequencies(channels) for axis, channels in enumerate(axes_dims)], dim=1
    )
    return Rope(cos=angles.cos().to(device), sin=angles.sin().to(device))


def _grid_positions(frame: int, height: int, width: int) -> Tensor:
    """[height · width, 3]: frame, row, column; an odd side has its extra row or column on the negative side."""
    rows = torch.arange(height) - (height - height // 2)
    columns = torch.arange(width) - (width - width // 2)
    return torch.cartesian_prod(torch.tensor([frame]), rows, columns)


def _frequencies(channels: int) -> Tensor:
    return 1.0 / torch.pow(THETA, torch.arange(0, channels, 2).float() / channels)
