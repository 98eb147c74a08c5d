"""The services on one data folder all make edits with the same checkpoint: each may make any job of the folder's."""

import fcntl
from typing import TextIO

from darkroom.checkpoint.locate import known_as
from darkroom.errors import BadSetting
from darkroom.settings import Settings

FILE = "serving"


def occupy(settings: Settings) -> TextIO:
    """Have a service with these settings work on its data folder, which is there, until what is returned is closed or
    its process has ended.

    Raises `BadSetting` if others are at work there that make other pictures of the same requests.
    """
    ours = _what(settings)
    file = (settings.data / FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(ours)
        file.flush()
    except BlockingIOError:
        # Others are there, and have written what they serve.
        pass
    fcntl.flock(file, fcntl.LOCK_SH)
    file.seek(0)
    if (theirs := file.read()) != ours:
        file.close()
        raise BadSetting(
            f"DARKROOM_DATA = {str(settings.data)!r}: a service is at work there with {theirs} and would be given jobs "
            f"of {ours}: name that checkpoint, or another folder; for an edit, that service (--server)"
        )
    return file


def _what(settings: Settings) -> str:
    return f"{known_as(settings.checkpoint)} (tier {settings.quality_tier}, dtype {settings.dtype})"
