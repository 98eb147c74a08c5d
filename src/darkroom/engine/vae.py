"""Pictures to latents and back, by the Qwen-Image VAE. Latents are normalised and packed 2 × 2 into tokens."""

import torch
from torch import Tensor

from darkroom.checkpoint.layout import Component
from darkroom.engine.load import WithoutMemory, fill
from darkroom.engine.vae_config import SCALE_PX, Coder, VaeConfig
from darkroom.engine.vae_model import VaeModel
from darkroom.engine.vae_strips import Strip, plan_strips

PACK = 2
TOKEN_PX = SCALE_PX * PACK
"""Pixels of a side in a token's."""


class Vae:
    """memory_bytes: what activations may take; None is no limit. Where a batch would take more, its pictures are
    computed one by one, and where one still would, in strips: the same result, for more work."""

    def __init__(self, model: VaeModel, config: VaeConfig, *, memory_bytes: int | None = None) -> None:
        self._model = model
        self._config = config
        self._memory_bytes = memory_bytes
        self.channels = config.z_dim
        like = next(model.parameters())
        self._mean, self._std = (
            torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )

    @classmethod
    def load(
        cls, component: Component, *, device: torch.device, dtype: torch.dtype, memory_bytes: int | None = None
    ) -> "Vae":
        """Raises `BadCheckpoint`."""
        config = VaeConfig.read(component.config)
        with WithoutMemory():
            model = VaeModel(config)
        fill(model, component, device=device, dtype=dtype)
        model.fold()
        return cls(model, config, memory_bytes=memory_bytes)

    def encode(self, pictures: Tensor) -> Tensor:
        """[B, 3, height, width] in -1…1 → [B, tokens, 4 · channels]: the mean of what each picture may be coded as."""
        pixels = pictures.to(self._mean.device, self._mean.dtype)
        batch, _, height, width = pixels.shape
        strips = self._strips(self._config.encoder, batch, height // SCALE_PX, width // SCALE_PX)
        if batch > 1 and len(strips) > 1:
            return torch.cat([self.encode(picture[None]) for picture in pictures])
        return pack((self._model.encode(pixels, strips) - self._mean) / self._std)

    def decode(self, tokens: Tensor, *, width_px: int, height_px: int) -> Tensor:
        """[B, tokens, 4 · channels] → [B, 3, height, width] in -1…1."""
        latents = unpack(tokens.to(self._mean.dtype), height_px // TOKEN_PX, width_px // TOKEN_PX)
        batch, _, rows, columns = latents.shape
        strips = self._strips(self._config.decoder, batch, rows, columns)
        if batch > 1 and len(strips) > 1:
            return torch.cat([self.decode(one[None], width_px=width_px, height_px=height_px) for one in tokens])
        return self._model.decode(latents * self._std + self._mean, strips)

    def _strips(self, coder: Coder, batch: int, rows: int, columns: int) -> tuple[Strip, ...]:
        return plan_strips(
            coder,
            latent_rows=rows,
            latent_columns=columns,
            value_bytes=batch * self._mean.element_size(),
            memory_bytes=self._memory_bytes,
        )


def pack(latents: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H/2 · W/2, 4 · C]."""
    batch, channels, height, width = latents.shape
    grouped = latents.reshape(batch, channels, height // PACK, PACK, width // PACK, PACK)
    return grouped.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PACK**2)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """[B, rows · columns, 4 · C] → [B, C, 2 · rows, 2 · columns]."""
    batch, _, channels = tokens.shape
    grouped = tokens.view(batch, rows, columns, channels // PACK**2, PACK, PACK)
    return grouped.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, PACK * rows, PACK * columns)
