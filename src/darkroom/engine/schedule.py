"""The noise schedule: how much noise is left at each step. Pure arithmetic, in float32 as in training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import BadCheckpoint

LIGHTNING_SHIFT = math.log(3)
_NEVER = ("invert_sigmas", "stochastic_sampling", "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """scheduler_config.json of a FlowMatchEulerDiscreteScheduler; the defaults are that class's own.

    With dynamic shifting, steps go where the noise is in larger pictures: the shift runs from `base_shift` at
    `base_image_seq_len` tokens to `max_shift` at `max_image_seq_len`. shift_terminal: noise left at the last step.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    shift_terminal: float | None = None
    time_shift_type: Literal["exponential", "linear"] = "exponential"

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "ScheduleConfig":
        """Raises `BadCheckpoint` where the file asks for another sampler than this one."""
        if (name := config.get("_class_name")) != "FlowMatchEulerDiscreteScheduler":
            raise BadCheckpoint(f"scheduler_config.json: {name} is not FlowMatchEulerDiscreteScheduler")
        for name in _NEVER:
            if config.get(name):
                raise BadCheckpoint(f"scheduler_config.json: {name} is set, which Darkroom does not run")
        made = cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})
        if made.time_shift_type not in ("exponential", "linear"):
            raise BadCheckpoint(f"scheduler_config.json: time_shift_type {made.time_shift_type!r} is not known")
        return made

    def for_lightning(self) -> "ScheduleConfig":
        """As those LoRAs were trained: the same shift at every size, and noise to the end."""
        return replace(self, base_shift=LIGHTNING_SHIFT, max_shift=LIGHTNING_SHIFT, shift_terminal=None)

    def mu(self, image_tokens: int) -> float:
        """The shift for a result of so many tokens."""
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        return image_tokens * slope + self.base_shift - slope * self.base_image_seq_len


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSchedule:
    """sigmas: the share of noise before each step, and 0 after the last. timesteps: the same as the model counts it."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def make_schedule(config: ScheduleConfig, *, steps: int, image_tokens: int) -> NoiseSchedule:
    """image_tokens: of the result alone.

    A single step goes from noise alone to the picture, so there is nothing to stretch to `shift_terminal`.
    """
    sigmas = np.linspace(1.0, 1.0 / steps, steps).astype(np.float32)
    if config.use_dynamic_shifting:
        sigmas = _shift(config, config.mu(image_tokens), sigmas)
    else:
        sigmas = config.shift * sigmas / (1 + (config.shift - 1) * sigmas)
    if config.shift_terminal and steps > 1:
        remaining = 1 - sigmas
        sigmas = 1 - remaining / (remaining[-1] / (1 - config.shift_terminal))
    sigmas = sigmas.astype(np.float32)
    timesteps = sigmas * np.float32(config.num_train_timesteps)
    return NoiseSchedule(sigmas=(*map(float, sigmas), 0.0), timesteps=tuple(map(float, timesteps)))


def _shift(config: ScheduleConfig, mu: float, sigmas: NDArray[np.float32]) -> NDArray[np.float32]:
    weight = math.exp(mu) if config.time_shift_type == "exponential" else mu
    odds = 1 / sigmas - 1
    return np.divide(weight, weight + odds, dtype=np.float32)
