"""Samples being put together: the pictures they need, and what is asked of them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.world.render import render
from training.world.scene import Scene

Retouch = Callable[..., Tensor]
"""Makes a picture (uint8, 3 × side × side) of others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Asked of `pictures` (one to three, the prompt's order): `prompt`. The right answer is `target`. Numbers are
    places in the draft's pictures. job: the edit's kind. rivals: samples with the same rival name differ only in what
    is asked (another turn, another swatch, another colour)."""

    job: str
    pictures: tuple[int, ...]
    prompt: str
    target: int
    rivals: str = ""


@dataclass(slots=True)
class Draft:
    """rng: everything random about the samples comes from it."""

    rng: random.Random
    samples: list[Sample] = field(default_factory=list)
    _scenes: list[Scene | tuple[Retouch, tuple[int, ...]]] = field(default_factory=list)

    def picture(self, scene: Scene) -> int:
        """The place of the scene's picture."""
        self._scenes.append(scene)
        return len(self._scenes) - 1

    def retouched(self, retouch: Retouch, *pictures: int) -> int:
        """The place of a picture made of earlier ones."""
        self._scenes.append((retouch, pictures))
        return len(self._scenes) - 1

    def ask(self, job: str, pictures: Sequence[int], target: int, wordings: Sequence[str], *, rivals: str = "") -> None:
        """Adds a sample in one of the wordings."""
        prompt = self.rng.choice(wordings)
        self.samples.append(Sample(job=job, pictures=tuple(pictures), prompt=prompt, target=target, rivals=rivals))

    def develop(self, device: torch.device, *, compiled: bool = True) -> Tensor:
        """All pictures: uint8, N × 3 × side × side."""
        scenes = [(place, scene) for place, scene in enumerate(self._scenes) if isinstance(scene, Scene)]
        rendered = render([scene for _, scene in scenes], device=device, compiled=compiled)
        pictures: list[Tensor] = [rendered[0]] * len(self._scenes)
        for (place, _), picture in zip(scenes, rendered, strict=True):
            pictures[place] = picture
        for place, scene in enumerate(self._scenes):
            if not isinstance(scene, Scene):
                retouch, of = scene
                pictures[place] = retouch(*(pictures[earlier] for earlier in of))
        return torch.stack(pictures)
