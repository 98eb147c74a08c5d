"""The Qwen-Image VAE for single pictures, in two dimensions: the fast twin that is trained.

With one frame, a causal 3-D convolution reads its kernel's last slice alone, so the twin's weights, put into that
slice, make the published model compute the same. Module names are the published ones.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from torch import Tensor, nn

from training.config import VaeSizes


class Norm(nn.Module):
    """RMS norm over channels; `act` adds SiLU."""

    def __init__(self, channels: int, *, dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *([1] * dims)))

    def forward(self, x: Tensor, *, act: bool = True) -> Tensor:
        gamma = self.gamma.reshape(1, -1, 1, 1).float()
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + 1e-12) * gamma
        return (F.silu(scaled) if act else scaled).to(x.dtype)


class Residual(nn.Module):
    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.norm1 = Norm(inward, dims=3)
        self.conv1 = nn.Conv2d(inward, outward, 3, padding=1)
        self.norm2 = Norm(outward, dims=3)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.conv_shortcut(x)
        out: Tensor = kept + self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return out


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels, dims=2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, high, wide = x.shape
        q, k, v = self.to_qkv(self.norm(x, act=False)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) * channels**-0.5, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, channels, high, wide)
        out: Tensor = x + self.proj(mixed)
        return out


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList([Residual(channels, channels), Residual(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resample(x)
        return out


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2.0, mode="nearest-exact")
        self.resample = nn.Sequential(upsample, nn.Conv2d(channels, channels // 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resample(x)
        return out


class UpBlock(nn.Module):
    def __init__(self, inward: int, outward: int, residuals: int, *, last: bool) -> None:
        super().__init__()
        widths = [inward] + [outward] * residuals
        self.resnets = nn.ModuleList([Residual(width, outward) for width in widths])
        self.upsamplers = None if last else nn.ModuleList([Up(outward)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class Encoder(nn.Module):
    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        widths = [sizes.base_dim * factor for factor in (1, *sizes.dim_mult)]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for stage, outward in enumerate(widths[1:]):
            inward = [widths[stage]] + [outward] * (sizes.num_res_blocks - 1)
            blocks.extend(Residual(width, outward) for width in inward)
            if stage < len(sizes.dim_mult) - 1:
                blocks.append(Down(outward))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = Middle(widths[-1])
        self.norm_out = Norm(widths[-1], dims=3)
        self.conv_out = nn.Conv2d(widths[-1], 2 * sizes.z_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.norm_out(self.mid_block(x)))
        return out


class Decoder(nn.Module):
    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        mult = (sizes.dim_mult[-1], *reversed(sizes.dim_mult))
        widths = [sizes.base_dim * factor for factor in mult]
        self.conv_in = nn.Conv2d(sizes.z_dim, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0])
        last = len(sizes.dim_mult) - 1
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(widths[i] // (2 if i else 1), widths[i + 1], sizes.num_res_blocks, last=i == last)
                for i in range(last + 1)
            ]
        )
        self.norm_out = Norm(widths[-1], dims=3)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.norm_out(x))
        return out


class VaeTwin(nn.Module):
    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        self.z_dim = sizes.z_dim
        self.encoder = Encoder(sizes)
        self.quant_conv = nn.Conv2d(2 * sizes.z_dim, 2 * sizes.z_dim, 1)
        self.post_quant_conv = nn.Conv2d(sizes.z_dim, sizes.z_dim, 1)
        self.decoder = Decoder(sizes)

    def encode(self, pictures: Tensor) -> Tensor:
        """N × 3 × H × W in [-1, 1] → the posterior's mean, N × z × H/8 × W/8."""
        mean: Tensor = self.quant_conv(self.encoder(pictures))[:, : self.z_dim]
        return mean

    def decode(self, latents: Tensor) -> Tensor:
        """Unclamped pictures."""
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out


def channels_last(twin: VaeTwin) -> VaeTwin:
    """With its weights laid out as convolutions read them fastest."""
    for parameter in twin.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return twin


def unfold(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The twin's weights in the published model's shapes; what a single frame never reads is zero.

    Raises ValueError on a weight the published model lacks.
    """
    if extra := weights.keys() - shapes.keys():
        raise ValueError(f"the published model lacks {sorted(extra)}")
    out = {}
    for name, shape in shapes.items():
        value = weights.get(name)
        out[name] = torch.zeros(shape)
        if value is not None and value.dim() == 4 and len(shape) == 5:
            out[name][:, :, -1] = value
        elif value is not None:
            out[name] = value.reshape(shape)
    return out


def fold(published: Mapping[str, Tensor], twin: VaeTwin) -> dict[str, Tensor]:
    """The inverse of `unfold`: a published file's weights in the twin's shapes."""
    return {
        name: (published[name][:, :, -1] if published[name].dim() == 5 and own.dim() == 4 else published[name])
        .reshape(own.shape)
        .float()
        for name, own in twin.state_dict().items()
    }
