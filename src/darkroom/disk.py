"""What the file system is asked, and what it answers."""

import errno
import os
from pathlib import Path
from typing import Final

NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
"""Of an `OSError`: there is no room."""


def sync(folder: Path) -> None:
    """Return when the names in the folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
