"""The third stage: from noise to the latents of the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.engine.modulation import StepModulation
from darkroom.engine.rope import Rope
from darkroom.engine.schedule import NoiseSchedule
from darkroom.engine.transformer import Joint, Transformer

BATCHED_TOKENS = 4096
"""Up to so many image tokens both prompts go through the transformer in one batch. Beyond, a pass fills the device by
itself, and two would only take twice the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One pass through the transformer at every step, for one prompt or two. text: [1, T, D], of all its prompts."""

    text: Tensor
    joint: Joint


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What a request's steps share. references: [1, tokens, D]. passes: of the prompt, then of the negative one."""

    passes: tuple[Pass, ...]
    references: Tensor
    true_cfg_scale: float


def make_passes(prompts: Sequence[Tensor], ropes: Sequence[Rope], *, result_tokens: int) -> tuple[Pass, ...]:
    """prompts: one or two, [1, T, D] each. ropes: of each prompt's text, result and references."""
    image_tokens = ropes[0].tokens - prompts[0].shape[1]
    size = len(prompts) if len(prompts) * image_tokens <= BATCHED_TOKENS else 1
    return tuple(
        Pass(
            text=torch.cat([*prompts[first : first + size]], dim=1),
            joint=Joint(
                text_tokens=tuple(prompt.shape[1] for prompt in prompts[first : first + size]),
                ropes=tuple(ropes[first : first + size]),
                result_tokens=result_tokens,
            ),
        )
        for first in range(0, len(prompts), size)
    )


def denoise(
    transformer: Transformer,
    noise: Tensor,
    conditions: Conditions,
    schedule: NoiseSchedule,
    on_step: Callable[[int], None],
) -> Tensor:
    """noise, and what is returned: [1, tokens, channels], float32. on_step: told how many steps are done.

    Euler's method along the predicted velocity. Between steps latents stay in float32, whatever the model computes in.
    """
    modulation = transformer.modulation(schedule.timesteps)
    latents = noise
    for step in range(schedule.steps):
        velocity = _velocity(transformer, latents, conditions, modulation.at(step))
        latents = latents + (schedule.sigmas[step + 1] - schedule.sigmas[step]) * velocity
        on_step(step + 1)
    return latents


def _velocity(transformer: Transformer, latents: Tensor, conditions: Conditions, modulation: StepModulation) -> Tensor:
    taken, references = latents.to(transformer.dtype), conditions.references
    predicted = [transformer(taken, references, each.text, modulation, each.joint) for each in conditions.passes]
    positive, *negative = torch.split(torch.cat(predicted).float(), 1)
    return guide(positive, negative[0], conditions.true_cfg_scale) if negative else positive


def guide(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Away from the negative prediction by `scale`, at the positive one's length in every token."""
    combined = negative + scale * (positive - negative)
    rescale: Tensor = positive.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    return combined * rescale
