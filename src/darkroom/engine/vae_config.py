"""The VAE's shape, worked out from its config.json: how wide each resolution is, how far its convolutions see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.errors import BadCheckpoint

SCALE_PX = 8
"""Pixels of a side in a latent's."""

# What the published config.json says, and its classes assume where it is silent.
_LATENTS_MEAN: tuple[float, ...] = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
_LATENTS_MEAN += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
_LATENTS_STD: tuple[float, ...] = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
_LATENTS_STD += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The residual blocks at one resolution, and the change to the next.

    inward: channels of the first block's input; width: of all others. reach: rows that its convolutions see above and
    below a row, the change of resolution left out. in_time: published with a kernel in time, which no frame meets that
    is alone.
    """

    inward: int
    width: int
    residuals: int
    reach: int
    in_time: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Coder:
    """The encoder's or the decoder's levels in the order in which they run.

    scales: rows at each level's input for a row of latents; last, those of what comes out.
    """

    levels: tuple[Level, ...]
    scales: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig:
    z_dim: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    encoder: Coder
    decoder: Coder

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "VaeConfig":
        """From config.json. Raises `BadCheckpoint` where it asks for what this model has not."""
        widths = [config["base_dim"] * factor for factor in config["dim_mult"]]
        if 2 ** (len(widths) - 1) != SCALE_PX:
            raise BadCheckpoint(f"vae/config.json: dim_mult has {len(widths)} entries; Darkroom's latents need 4")
        if config.get("input_channels", 3) != 3:
            raise BadCheckpoint(f"vae/config.json: input_channels is {config['input_channels']}; pictures have 3")
        mean = tuple(config.get("latents_mean") or _LATENTS_MEAN)
        std = tuple(config.get("latents_std") or _LATENTS_STD)
        if not len(mean) == len(std) == config["z_dim"]:
            raise BadCheckpoint(
                f"vae/config.json: latents_mean and latents_std must have z_dim, {config['z_dim']}, values"
            )
        blocks, in_time = config["num_res_blocks"], config["temperal_downsample"]
        return cls(
            z_dim=config["z_dim"],
            latents_mean=mean,
            latents_std=std,
            encoder=_encoder([config["base_dim"], *widths], blocks, in_time),
            decoder=_decoder([widths[-1], *reversed(widths)], blocks + 1, list(reversed(in_time))),
        )


def _encoder(widths: list[int], residuals: int, in_time: list[bool]) -> Coder:
    count = len(widths) - 1
    return Coder(
        levels=tuple(
            Level(
                inward=widths[index],
                width=widths[index + 1],
                residuals=residuals,
                reach=2 * residuals + (index == 0),  # conv_in
                in_time=index < count - 1 and in_time[index],
            )
            for index in range(count)
        ),
        scales=(*(SCALE_PX >> index for index in range(count)), 1),
    )


def _decoder(widths: list[int], residuals: int, in_time: list[bool]) -> Coder:
    count = len(widths) - 1
    return Coder(
        levels=tuple(
            Level(
                inward=widths[index] // 2 if index else widths[0],  # upsampling halves the channels
                width=widths[index + 1],
                residuals=residuals,
                reach=2 * residuals + (index == count - 1),  # conv_out
                in_time=index < count - 1 and in_time[index],
            )
            for index in range(count)
        ),
        scales=(*(1 << index for index in range(count)), SCALE_PX),
    )
