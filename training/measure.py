"""How near pictures are. Pictures are uint8, N × 3 × H × W; results have one figure a picture."""

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from torch import Tensor

_DIFFERS = 8
_GROWN = 2


def changed_area(truth: Tensor, before: Tensor) -> Tensor:
    """Where the edit changes the picture, grown by two pixels: bool, N × H × W."""
    differs = ((truth.int() - before.int()).abs() > _DIFFERS).any(1, keepdim=True).float()
    return F.max_pool2d(differs, 2 * _GROWN + 1, stride=1, padding=_GROWN)[:, 0] > 0


def psnr_db(made: Tensor, truth: Tensor, area: Tensor | None = None) -> Tensor:
    """Over the area, or the whole picture; at most 68 dB, so that an exact match counts as a number."""
    squares = (made.float() - truth.float()).square().mean(1)
    within = torch.ones_like(squares) if area is None else area.float()
    error = (squares * within).sum((1, 2)) / within.sum((1, 2)).clamp(min=1)
    return 10 * (255**2 / error.clamp(min=1e-2)).log10()


def changed_tokens(area: Tensor, token_px: int) -> Tensor:
    """Which tokens of a picture have some changed pixel: bool, N × tokens."""
    return F.max_pool2d(area[:, None].float(), token_px)[:, 0].flatten(1) > 0


def mean(figures: Tensor) -> float:
    return float(torch.nan_to_num(figures).mean())
