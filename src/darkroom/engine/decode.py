"""The last stage: from latents to a picture."""

import torch
from PIL import Image
from torch import Tensor

from darkroom.engine.vae import Vae
from darkroom.errors import EngineFailed


def decode(vae: Vae, latents: Tensor, *, width_px: int, height_px: int) -> Image.Image:
    """latents: [1, tokens, channels]. Raises `EngineFailed` where they hold no picture."""
    picture = vae.decode(latents, width_px=width_px, height_px=height_px)[0].float()
    if not torch.isfinite(picture).all():
        raise EngineFailed("the model's result is not a picture (values are not finite)")
    levels = (picture / 2 + 0.5).clamp(0, 1) * 255
    return Image.fromarray(levels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
