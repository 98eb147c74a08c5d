"""The Qwen-Image VAE for single pictures, in two dimensions.

Parameters carry the published names. They are built in the published shapes, to be filled from a checkpoint; `fold`
then leaves what one frame meets: of a causal kernel in three dimensions the last slice in time, of those in time alone
nothing, and of the encoder's result the mean. Shapes: B batch, z latent channels; memory is channels last.
"""

from collections.abc import Sequence
from itertools import chain, pairwise

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor, nn

from darkroom.engine.attention import by_products, fused
from darkroom.engine.vae_config import Coder, Level, VaeConfig
from darkroom.engine.vae_strips import Strip

_EPS = 1e-24
"""Of a mean of squares: keeps a pixel whose channels are all zero from being divided by zero, and changes no other."""

_BAND = 2**20
"""Values normalised at a time on a CPU, so that they stay in its cache."""


class CausalConv(nn.Conv2d):
    def __init__(self, inward: int, outward: int, side: int) -> None:
        super().__init__(inward, outward, side, padding=side // 2)
        self.weight = nn.Parameter(torch.empty(outward, inward, side, side, side))

    def fold(self) -> None:
        self.weight = _parameter(self.weight[:, :, -1])

    def keep(self, outward: int) -> None:
        """The first so many channels of the result, and no others."""
        self.weight = _parameter(self.weight[:outward])
        if self.bias is not None:
            self.bias = _parameter(self.bias[:outward])


class UpConv(nn.ConvTranspose2d):
    """Each pixel doubled both ways, then a 3 × 3 convolution. Taps that fall on copies of one pixel act as their sum:
    a transposed 4 × 4 convolution of stride 2, less than half the work and no doubled picture in memory."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__(inward, outward, 4, stride=2, padding=1)
        self.weight = nn.Parameter(torch.empty(outward, inward, 3, 3))

    def fold(self) -> None:
        spread = self.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float32)
        summed = torch.einsum("ya,oiab,xb->ioyx", spread, self.weight.float(), spread)
        self.weight = _parameter(summed.to(self.weight.dtype))


class RmsNorm(nn.Module):
    """Over channels, computed in float32. silu: the activation that follows, on what is still in the cache."""

    def __init__(self, channels: int, *, dims: int, silu: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *[1] * dims))
        self._silu = silu

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return self._normalised(x, self.gamma)
        out = torch.empty_like(x)
        rows = max(1, _BAND // x[:, :, 0].numel())
        for start in range(0, x.shape[2], rows):
            band = x[:, :, start : start + rows].float()
            out[:, :, start : start + rows] = self._normalised(band, self.gamma.float())
        return out

    def _normalised(self, x: Tensor, gamma: Tensor) -> Tensor:
        last = F.rms_norm(x.permute(0, 2, 3, 1), (x.shape[1],), gamma.flatten(), _EPS).permute(0, 3, 1, 2)
        return F.silu(last, inplace=True) if self._silu else last


class Residual(nn.Module):
    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(inward, dims=3, silu=True)
        self.conv1 = CausalConv(inward, outward, 3)
        self.norm2 = RmsNorm(outward, dims=3, silu=True)
        self.conv2 = CausalConv(outward, outward, 3)
        self.conv_shortcut = CausalConv(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.conv_shortcut(x)
        out: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return out.add_(kept)


class Attention(nn.Module):
    """One head over all pixels: so wide that CUDA has no quick kernel for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, dims=2, silu=False)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        qkv: Tensor = self.to_qkv(self.norm(x))
        attend = by_products if x.is_cuda else fused
        # Pictures take the place of heads.
        pixels = qkv.permute(0, 2, 3, 1).reshape(batch, rows * columns, 3 * channels).transpose(0, 1)
        mixed = torch.unflatten(attend(*pixels.chunk(3, dim=-1)), 1, (batch, channels)).transpose(0, 1)
        out: Tensor = self.proj(mixed.reshape(batch, rows, columns, channels).permute(0, 3, 1, 2))
        return out.add_(x)


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Residual(channels, channels), Residual(channels, channels)])
        self.attentions = nn.ModuleList([Attention(channels)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class Resample(nn.Module):
    """To the next resolution. `time_conv` is there to be filled, and goes with `fold`."""

    def __init__(self, conv: nn.Module, time_conv: nn.Module | None) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": conv})
        self.time_conv = time_conv

    def fold(self) -> None:
        self.time_conv = None


class Down(Resample):
    def __init__(self, width: int, *, in_time: bool) -> None:
        time_conv = nn.Conv3d(width, width, (3, 1, 1)) if in_time else None
        super().__init__(nn.Conv2d(width, width, 3, stride=2), time_conv)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resample["1"](F.pad(x, (0, 1, 0, 1)))
        return out


class Up(Resample):
    def __init__(self, width: int, *, in_time: bool) -> None:
        time_conv = nn.Conv3d(width, 2 * width, (3, 1, 1)) if in_time else None
        super().__init__(UpConv(width, width // 2), time_conv)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resample["1"](x)
        return out


class UpBlock(nn.Module):
    def __init__(self, level: Level, *, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_residuals(level))
        self.upsamplers = nn.ModuleList([] if last else [Up(level.width, in_time=level.in_time)])


class Encoder(nn.Module):
    def __init__(self, coder: Coder, z_dim: int) -> None:
        super().__init__()
        self._scales = coder.scales
        width = coder.levels[-1].width
        self.conv_in = CausalConv(3, coder.levels[0].inward, 3)
        levels = [[*_residuals(level), Down(level.width, in_time=level.in_time)] for level in coder.levels]
        levels[-1].pop()
        self.down_blocks = nn.ModuleList(chain(*levels))
        self.mid_block = Middle(width)
        self.norm_out = RmsNorm(width, dims=3, silu=True)
        self.conv_out = CausalConv(width, 2 * z_dim, 3)
        self._blocks_per_level = len(levels[0])

    def forward(self, pictures: Tensor, strips: Sequence[Strip]) -> Tensor:
        """[B, 3, H, W] → [B, 2 z, H/8, W/8]. What lies before the middle is computed strip by strip."""
        features = torch.cat([through(self.levels(), self._scales, pictures, strip) for strip in strips], dim=2)
        out: Tensor = self.conv_out(self.norm_out(self.mid_block(features)))
        return out

    def levels(self) -> list[list[nn.Module]]:
        size, blocks = self._blocks_per_level, list(self.down_blocks)
        levels = [blocks[start : start + size] for start in range(0, len(blocks), size)]
        levels[0].insert(0, self.conv_in)
        return levels


class Decoder(nn.Module):
    def __init__(self, coder: Coder, z_dim: int) -> None:
        super().__init__()
        self._scales = coder.scales
        last = coder.levels[-1]
        self.conv_in = CausalConv(z_dim, coder.levels[0].inward, 3)
        self.mid_block = Middle(coder.levels[0].inward)
        self.up_blocks = nn.ModuleList([UpBlock(level, last=level is last) for level in coder.levels])
        self.norm_out = RmsNorm(last.width, dims=3, silu=True)
        self.conv_out = CausalConv(last.width, 3, 3)

    def forward(self, latents: Tensor, strips: Sequence[Strip]) -> Tensor:
        """[B, z, H, W] → [B, 3, 8 H, 8 W]. What lies behind the middle is computed strip by strip."""
        features = self.mid_block(self.conv_in(latents))
        return torch.cat([through(self.levels(), self._scales, features, strip) for strip in strips], dim=2)

    def levels(self) -> list[list[nn.Module]]:
        levels = [[layer for part in block.children() for layer in part.children()] for block in self.up_blocks]
        levels[-1] += [self.norm_out, self.conv_out]
        return levels


class VaeModel(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.z_dim)
        self.quant_conv = CausalConv(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = CausalConv(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config.decoder, config.z_dim)

    def fold(self) -> None:
        """From the published tensors to those that one frame meets, channels last. Once, after they are filled."""
        for part in list(self.modules()):
            if isinstance(part, CausalConv | UpConv | Resample):
                part.fold()
        self.quant_conv.keep(self.post_quant_conv.in_channels)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def encode(self, pictures: Tensor, strips: Sequence[Strip]) -> Tensor:
        """[B, 3, H, W] in -1…1 → [B, z, H/8, W/8]: the mean of what each picture may be coded as."""
        latents: Tensor = self.quant_conv(self.encoder(pictures.contiguous(memory_format=torch.channels_last), strips))
        return latents

    def decode(self, latents: Tensor, strips: Sequence[Strip]) -> Tensor:
        """[B, z, H, W] → [B, 3, 8 H, 8 W] in -1…1."""
        whole = self.post_quant_conv(latents.contiguous(memory_format=torch.channels_last))
        pictures: Tensor = self.decoder(whole, strips)
        return pictures.clamp_(-1, 1)


def _residuals(level: Level) -> list[nn.Module]:
    widths = [level.inward] + [level.width] * level.residuals
    return [Residual(inward, outward) for inward, outward in pairwise(widths)]


def through(levels: Sequence[Sequence[nn.Module]], scales: Sequence[int], x: Tensor, strip: Strip) -> Tensor:
    """The rows that `strip` ends with, from those it begins with. A level's surplus rows are cut before the next."""
    first = 0
    for layers, rows, here, after in zip(levels, strip, scales, scales[1:], strict=False):
        x = x[:, :, rows.start - first : rows.stop - first]
        for layer in layers:
            x = layer(x)
        first = rows.start * after // here
    return x[:, :, strip[-1].start - first : strip[-1].stop - first]


def _parameter(value: Tensor) -> nn.Parameter:
    """With memory of its own, so that what it was cut from is let go."""
    return nn.Parameter(value.clone(), requires_grad=False)
