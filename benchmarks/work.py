"""The stages of one edit, each to be run by itself, any number of times."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from PIL.Image import Image
from torch import Tensor

from benchmarks.request import make_request
from darkroom.engine.decode import decode
from darkroom.engine.engine import Encoded, Engine
from darkroom.engine.memo import Memo

MEMO_BYTES = 2**28
"""As much as an engine keeps of what it encoded, where it is to keep anything."""


class Work:
    def __init__(self, engine: Engine, *, steps: int, pictures: int = 1) -> None:
        self.engine = engine
        request = make_request(0, pictures=pictures, steps=steps)
        self._edit = request.edit
        self._prepared = engine.prepare(request.edit, request.pictures)
        self._encoded = self._inferred(engine._encode)(request.edit, self._prepared)

    def encode(self) -> Encoded:
        """Of pictures and a prompt not met before."""
        with patch.object(self.engine, "_memo", Memo(MEMO_BYTES)):
            return self.encode_again()

    def encode_again(self) -> Encoded:
        """Of the same pictures and prompt as before."""
        return self._inferred(self.engine._encode)(self._edit, self._prepared)

    def denoise(self) -> Tensor:
        return self._inferred(self.engine._denoise)(self._edit, self._prepared, self._encoded, lambda _: None)

    def vae(self) -> Image:
        """A picture to latents, and these back to a picture."""
        vae, reference = self.engine._models.vae, self._prepared.references[0].pixels
        height_px, width_px = reference.shape[-2:]
        latents = self._inferred(vae.encode)(reference)
        return self._inferred(decode)(vae, latents, width_px=width_px, height_px=height_px)

    @staticmethod
    def _inferred(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.inference_mode()(function)
