"""The transformer of diffusers with our weights, and the same steps through both."""

import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from darkroom.engine import denoise as denoising
from darkroom.engine.denoise import Conditions, guide, make_passes
from darkroom.engine.load import WithoutMemory
from darkroom.engine.rope import joint_rope
from darkroom.engine.schedule import NoiseSchedule, ScheduleConfig, make_schedule
from darkroom.engine.tiny import SCHEDULER
from darkroom.engine.transformer import FUSED, Transformer, TransformerConfig

TEXT_TOKENS, PICTURE_TOKENS = 64, 196
"""Of a prompt, and of each picture in it."""
CFG_SCALE = 4.0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """noise: [1, R, channels], float32. references: [1, S - R, channels]. prompts: [1, T, joint_attention_dim] each.
    grids: of the result and each picture, in tokens."""

    noise: Tensor
    references: Tensor
    prompts: tuple[Tensor, ...]
    grids: tuple[tuple[int, int], ...]

    @property
    def image_tokens(self) -> int:
        return self.noise.shape[1] + self.references.shape[1]

    @property
    def text_tokens(self) -> int:
        return self.prompts[0].shape[1]


def make_inputs(
    config: TransformerConfig, *, side: int, pictures: int, prompts: int, device: torch.device, dtype: torch.dtype
) -> Inputs:
    """side: of the square result and pictures, in tokens. The second prompt is a little shorter than the first."""
    generator = torch.Generator().manual_seed(7)
    small = side < 16
    lengths = [TEXT_TOKENS // (8 if small else 1) - 5 * index for index in range(prompts)]
    picture_tokens = pictures * (4 if small else PICTURE_TOKENS)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    return Inputs(
        noise=some(1, side * side, config.in_channels),
        references=some(1, pictures * side * side, config.in_channels).to(dtype),
        prompts=tuple(some(1, picture_tokens + length, config.joint_attention_dim).to(dtype) for length in lengths),
        grids=((side, side),) * (pictures + 1),
    )


def steps_of(inputs: Inputs, steps: int) -> NoiseSchedule:
    return make_schedule(ScheduleConfig.read(SCHEDULER), steps=steps, image_tokens=inputs.noise.shape[1])


def conditions_of(transformer: Transformer, inputs: Inputs, *, batched_tokens: int | None = None) -> Conditions:
    """batched_tokens: in place of the engine's own bound."""
    bound = denoising.BATCHED_TOKENS if batched_tokens is None else batched_tokens
    axes, device = transformer.config.axes_dims_rope, inputs.noise.device
    with patch.object(denoising, "BATCHED_TOKENS", bound):
        passes = make_passes(
            [transformer.embed_text(prompt) for prompt in inputs.prompts],
            [joint_rope(prompt.shape[1], inputs.grids, axes, device) for prompt in inputs.prompts],
            result_tokens=inputs.noise.shape[1],
        )
    return Conditions(passes=passes, references=transformer.embed_image(inputs.references), true_cfg_scale=CFG_SCALE)


def our_steps(transformer: Transformer, inputs: Inputs, schedule: NoiseSchedule) -> Tensor:
    """All that a request's denoising takes, the modulation of all its steps too."""
    conditions = conditions_of(transformer, inputs)
    return denoising.denoise(transformer, inputs.noise, conditions, schedule, lambda _: None)


def their_steps(theirs: nn.Module, inputs: Inputs, schedule: NoiseSchedule) -> Tensor:
    """As the reference pipeline does it: one pass after the other, references with the latents every time."""
    latents, result_tokens = inputs.noise, inputs.noise.shape[1]
    dtype = inputs.references.dtype
    shapes = [(1, *grid) for grid in inputs.grids]
    moments = torch.tensor(schedule.timesteps, device=latents.device).to(dtype) / 1000
    for step in range(schedule.steps):
        image = torch.cat([latents.to(dtype), inputs.references], dim=1)
        positive, *negative = [
            theirs(
                hidden_states=image,
                encoder_hidden_states=prompt,
                timestep=moments[step, None],
                img_shapes=[shapes],
                return_dict=False,
            )[0][:, :result_tokens].float()
            for prompt in inputs.prompts
        ]
        velocity = guide(positive, negative[0], CFG_SCALE) if negative else positive
        latents = latents + (schedule.sigmas[step + 1] - schedule.sigmas[step]) * velocity
    return latents


def reference_of(transformer: Transformer, found_at: Path | None) -> nn.Module:
    """Shares all weights with ours but those of queries and keys, whose rows ours has in another order."""
    kind = _import_reference(found_at)
    with WithoutMemory():
        theirs: nn.Module = kind(**_config(transformer.config))
    theirs.load_state_dict(published_state(transformer), assign=True)
    return theirs.requires_grad_(requires_grad=False).eval()


def published_state(transformer: Transformer) -> dict[str, Tensor]:
    """Our parameters under the published names and in the published order."""
    heads = transformer.config.num_attention_heads
    state: dict[str, Tensor] = {}
    for name, value in transformer.state_dict().items():
        path, _, leaf = name.rpartition(".")
        parent, _, own = path.rpartition(".")
        if own in FUSED:
            query, key, plain = value.chunk(3)
            parts = zip(FUSED[own], (unhalved(query, heads), unhalved(key, heads), plain), strict=True)
            state |= {f"{parent}.{part}.{leaf}": rows for part, rows in parts}
        else:
            state[name] = unhalved(value, 1) if own.startswith("norm_") and ".attn." in name else value
    return state


def unhalved(rows: Tensor, heads: int) -> Tensor:
    """What `kernels.halved` was given."""
    return torch.unflatten(rows, 0, (heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


def _config(config: TransformerConfig) -> dict[str, Any]:
    names: tuple[str, ...] = (
        "patch_size",
        "in_channels",
        "out_channels",
        "num_layers",
        "attention_head_dim",
        "num_attention_heads",
    )
    names += ("joint_attention_dim", "axes_dims_rope", "zero_cond_t")
    return {name: getattr(config, name) for name in names}


@cache
def _import_reference(found_at: Path | None) -> Any:
    wheels: Sequence[Path] = sorted(Path("build").glob("diffusers-*.whl")) if found_at is None else [found_at]
    for place in wheels:
        folder = place
        if place.suffix == ".whl":
            folder = Path(tempfile.mkdtemp(prefix="diffusers-"))
            with zipfile.ZipFile(place) as wheel:
                wheel.extractall(folder)
        sys.path.append(str(folder))
    from diffusers.models.transformers.transformer_qwenimage import (  # noqa: PLC0415  may only now be found
        QwenImageTransformer2DModel,
    )

    return QwenImageTransformer2DModel
