"""Putting files where there is room for them."""

import errno
import shutil
from collections.abc import Mapping
from typing import Final

from darkroom.blobs.folder import Folder
from darkroom.errors import StorageFull
from darkroom.settings import Settings

_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def keep(files: Mapping[str, bytes], *, blobs: Folder, settings: Settings) -> None:
    """Put all of the files, by their blobs' names. Raises `StorageFull`, which may leave some of them."""
    free_bytes = shutil.disk_usage(settings.data).free
    if free_bytes - sum(map(len, files.values())) < settings.min_free_bytes:
        raise StorageFull(
            f"The server's disk is nearly full ({free_bytes:,} bytes free); nothing was accepted, try again later"
        )
    try:
        for name, data in files.items():
            blobs.put(name, data)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull("The server's disk is full; nothing was accepted, try again later") from error
        raise
