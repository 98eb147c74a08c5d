"""Pictures to latents and back, by the Qwen-Image VAE. Latents are normalised and packed 2 × 2 into tokens."""

import torch
from diffusers import AutoencoderKLQwenImage
from torch import Tensor

from darkroom.checkpoint.layout import Component
from darkroom.engine.load import WithoutMemory, fill

SCALE_PX = 8
"""Pixels of a side in a latent's."""

PACK = 2
TOKEN_PX = SCALE_PX * PACK
"""Pixels of a side in a token's."""


class Vae:
    def __init__(self, model: AutoencoderKLQwenImage) -> None:
        self._model = model
        self.channels: int = model.config.z_dim
        like = next(model.parameters())
        self._mean, self._std = (
            torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
            for values in (model.config.latents_mean, model.config.latents_std)
        )

    @classmethod
    def load(cls, component: Component, *, device: torch.device, dtype: torch.dtype) -> "Vae":
        """Raises `BadCheckpoint`."""
        with WithoutMemory():
            model = AutoencoderKLQwenImage.from_config(dict(component.config))
        fill(model, component, device=device, dtype=dtype)
        return cls(model)

    def encode(self, picture: Tensor) -> Tensor:
        """[1, 3, height, width] in -1…1 → [1, tokens, 4 · channels]: the mean of what the picture may be coded as."""
        pixels = picture.to(self._mean.device, self._mean.dtype)
        latents = self._model.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
        return pack((latents - self._mean) / self._std)

    def decode(self, tokens: Tensor, *, width_px: int, height_px: int) -> Tensor:
        """[1, tokens, 4 · channels] → [1, 3, height, width] in -1…1."""
        latents = unpack(tokens.to(self._mean.dtype), height_px // TOKEN_PX, width_px // TOKEN_PX)
        picture: Tensor = self._model.decode((latents * self._std + self._mean)[:, :, None], return_dict=False)[0]
        return picture[:, :, 0]


def pack(latents: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H/2 · W/2, 4 · C]."""
    batch, channels, height, width = latents.shape
    grouped = latents.view(batch, channels, height // PACK, PACK, width // PACK, PACK)
    return grouped.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PACK**2)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """[B, rows · columns, 4 · C] → [B, C, 2 · rows, 2 · columns]."""
    batch, _, channels = tokens.shape
    grouped = tokens.view(batch, rows, columns, channels // PACK**2, PACK, PACK)
    return grouped.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, PACK * rows, PACK * columns)
