"""The third stage: from noise to the latents of the result."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from darkroom.engine.modulation import StepModulation
from darkroom.engine.rope import Rope
from darkroom.engine.schedule import NoiseSchedule
from darkroom.engine.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt, ready for the transformer. text: [1, T, D]. rope: of text, result and references."""

    text: Tensor
    rope: Rope


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What a request's steps share. references: [1, tokens, D]. negative: None where nothing is guided away from."""

    positive: Prompt
    negative: Prompt | None
    references: Tensor
    true_cfg_scale: float


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
    def predict(prompt: Prompt) -> Tensor:
        taken = latents.to(transformer.dtype)
        velocity: Tensor = transformer(taken, conditions.references, prompt.text, modulation, prompt.rope)
        return velocity.float()

    positive = predict(conditions.positive)
    if conditions.negative is None:
        return positive
    return guide(positive, predict(conditions.negative), conditions.true_cfg_scale)


def guide(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Away from the negative prediction by `scale`, at the positive one's length in every token."""
    combined = negative + scale * (positive - negative)
    rescale: Tensor = positive.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    return combined * rescale
