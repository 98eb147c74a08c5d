"""Pictures that stand in the request itself."""

import asyncio
import re
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from darkroom.catalogue.parameter import shorten
from darkroom.errors import InvalidField, PictureInvalid, PictureTooLarge
from darkroom.picture import Limits, check_picture

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]+|application/octet-stream)?(;[^;]*)?;base64", re.IGNORECASE)
_STANDARD = str.maketrans("-_", "+/")

# Pictures are read one at a time (`picture`). Those that wait for it stand here, and not in the threads that everything
# else is answered by.
_reader = ThreadPoolExecutor(1, thread_name_prefix="inline")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inline:
    """A file, and its media type as its bytes have it."""

    data: bytes
    content_type: str


def is_address(text: str) -> bool:
    """Whether it names a place, and is no picture itself."""
    return _ADDRESS.match(text) is not None


async def read_inline(value: str | bytes, *, field: str, limits: Limits) -> Inline:
    """The picture's file, once it is certain that the worker can read it.

    value: its bytes, or a data URL, or bare base64, padded or not, in either alphabet; white space in these doesn't
    matter. Raises `InvalidField`.
    """
    read = partial(_read, value, field=field, limits=limits)
    return await asyncio.get_running_loop().run_in_executor(_reader, read)


def _read(value: str | bytes, *, field: str, limits: Limits) -> Inline:
    data = value if isinstance(value, bytes) else _decoded(value, field)
    try:
        content_type = check_picture(data, field=field, limits=limits)
    except (PictureInvalid, PictureTooLarge) as error:
        raise InvalidField(error.message, field=field) from error
    return Inline(data=data, content_type=content_type)


def _decoded(text: str, field: str) -> bytes:
    header, payload = "", text
    if text[:5].lower() == "data:":
        header, _, payload = text.partition(",")
        if not _DATA_URL.fullmatch(header):
            raise InvalidField(
                f"{field}: a data URL must begin like data:image/png;base64, and not {shorten(header)!r}", field=field
            )
    # Both alphabets, padded or not: all of them are met, and none can be taken for another.
    digits = "".join(payload.split()).rstrip("=").translate(_STANDARD)
    try:
        return b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        raise InvalidField(
            f"{field}: what follows {header} is not base64"
            if header
            else f"{field} is neither an http(s) address, a data URL nor base64: {shorten(text)!r}",
            field=field,
        ) from None
