"""The model that LoRAs are to fit, as far as it is known without its weights."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from darkroom.checkpoint.declaration import declared
from darkroom.checkpoint.layout import PARTS, Component, read_component, read_model_index
from darkroom.checkpoint.locate import locate
from darkroom.checkpoint.published import PUBLISHED
from darkroom.checkpoint.tensors import needed_tensors
from darkroom.errors import BadCheckpoint
from darkroom.lora.header import parse_header
from darkroom.lora.modules import Modules
from darkroom.lora.survey import survey

PART = "transformer"


class Base:
    """checkpoint: the setting of that name. It may be one that is still being fetched."""

    def __init__(self, checkpoint: str | None) -> None:
        self._checkpoint = checkpoint

    def check(self, head: bytes, size_bytes: int) -> None:
        """head, size_bytes: of a file, as `parse_header` takes them.

        Raises `LoraError` if the file is not sound or does not fit; while the model is not here, the former is all that
        is known.
        """
        header = parse_header(head, size_bytes)
        if self.modules is not None:
            survey(header, self.modules).raise_first()

    @property
    def loras(self) -> Mapping[str, Path]:
        """The files that it brings along, by name; none while it is not here."""
        return declared(self._checkpoint).loras

    @property
    def modules(self) -> Modules | None:
        """None while the model is not here."""
        try:
            return self._modules
        except BadCheckpoint:
            return None

    def known_modules(self) -> Modules:
        """Raises `BadCheckpoint` while the model is not here."""
        return self._modules

    @cached_property
    def _modules(self) -> Modules:
        """Raises `BadCheckpoint`, and is tried anew the next time."""
        if self._checkpoint is None:
            raise BadCheckpoint("no checkpoint is set")
        if self._checkpoint in PUBLISHED:
            return published_modules(self._checkpoint)
        folder = locate(self._checkpoint, fetch=False)
        return Modules(needed_tensors(read_component(folder, PART, read_model_index(folder))))


def published_modules(name: str = "Qwen/Qwen-Image-Edit-2509") -> Modules:
    """Of a published model."""
    config = PUBLISHED[name][PART]
    return Modules(needed_tensors(Component(name=PART, class_name=PARTS[PART], config=config, tensors={})))
