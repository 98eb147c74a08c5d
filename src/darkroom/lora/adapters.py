"""From a request's LoRA to the file that the engine merges."""

import asyncio

from darkroom.edit import LoraRef
from darkroom.errors import LoraError
from darkroom.lora.base import Base
from darkroom.lora.convert import FORMAT, AdapterFile, convert
from darkroom.lora.library import Library


class Adapters:
    """Safe to use from several threads and workers at once: a canonical form is the same whoever makes it."""

    def __init__(self, library: Library, base: Base) -> None:
        self._library = library
        self._base = base

    def is_here(self, ref: LoraRef) -> bool:
        """Whether its file needs no network."""
        return self._library.is_here(ref)

    async def fetch(self, ref: LoraRef) -> None:
        """Its file, unless it is here. Raises `LoraError` that names the field."""
        await self._library.open(ref)

    async def bring(self, ref: LoraRef) -> AdapterFile:
        """Its canonical form for this model, fetched and converted unless it is here.

        Raises `LoraError` that names the field.
        """
        opened = await self._library.open(ref)
        modules = self._base.known_modules()
        # Another form, or another model, has another name: what was made for it stays out of the way.
        suffix = f".{FORMAT.replace(' ', '-')}.{modules.digest}.safetensors"
        path = self._library.store.beside(opened.digest, suffix)
        if not path.exists():
            try:
                await asyncio.to_thread(convert, opened.path, path, modules)
            except LoraError as error:
                raise error.at(ref.field) from error
        return AdapterFile(path=path, digest=opened.digest, strength=ref.strength)
