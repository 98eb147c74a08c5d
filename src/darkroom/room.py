"""Putting files where there is room for them."""

import shutil
from collections.abc import Mapping
from contextlib import suppress

from darkroom.blobs.folder import Folder
from darkroom.disk import NO_SPACE
from darkroom.errors import StorageFull
from darkroom.settings import Settings


def has_room(settings: Settings) -> bool:
    """Whether so much is free as is to be kept free."""
    return shutil.disk_usage(settings.data).free >= settings.min_free_bytes


def keep(files: Mapping[str, bytes], *, blobs: Folder, settings: Settings) -> None:
    """Put all of the files, by their blobs' names, or none of them. Raises `StorageFull`."""
    free_bytes = shutil.disk_usage(settings.data).free
    if free_bytes - sum(map(len, files.values())) < settings.min_free_bytes:
        raise StorageFull(
            f"The server's disk is nearly full ({free_bytes:,} bytes free); nothing was accepted, try again later"
        )
    try:
        for name, data in files.items():
            blobs.put(name, data)
    except OSError as error:
        for name in files:
            with suppress(OSError):
                blobs.delete(name)
        if error.errno in NO_SPACE:
            raise StorageFull("The server's disk is full; nothing was accepted, try again later") from error
        raise
