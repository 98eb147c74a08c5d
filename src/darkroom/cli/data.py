"""The data folder, tried before anything slow begins."""

from pathlib import Path
from tempfile import TemporaryFile

from darkroom.errors import BadSetting


def check_data(folder: Path) -> None:
    """Make the folder if there is none, and write into it. Raises `BadSetting` if that can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadSetting(f"DARKROOM_DATA = {str(folder)!r}: can't be written to: {error.strerror}") from error
