"""Uploads: pictures that a key sends once, to name them in later requests by their links."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import upload_name, uploads_prefix
from darkroom.catalogue.parameter import shorten
from darkroom.errors import InvalidField, UnknownField, UploadsFull
from darkroom.inline import Inline, is_address, read_inline
from darkroom.ledger.contract import Key
from darkroom.picture import Limits
from darkroom.room import keep
from darkroom.settings import Settings

FIELD = "data_urls"
MAX_FILES = 16
"""In one request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """file: its name in the link. expires_at: seconds since the epoch."""

    key_id: str
    file: str
    expires_at: int

    @property
    def blob(self) -> str:
        return upload_name(self.key_id, self.file, expires_at=self.expires_at)


class Uploads:
    """clock: seconds since the epoch."""

    def __init__(self, *, blobs: Folder, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._limits = Limits.of(settings)
        self._keeping = threading.Lock()

    async def take(self, params: Mapping[str, object], key: Key) -> list[Upload]:
        """Keep every picture of the request's `data_urls`, or none of them. Raises `RequestError`."""
        pictures = [await self._picture(url, f"{FIELD}[{position}]") for position, url in enumerate(_urls(params))]
        return await asyncio.to_thread(self._keep, pictures, key)

    def _keep(self, pictures: Sequence[Inline], key: Key) -> list[Upload]:
        expires_at = int(self._clock() + self._settings.upload_retention_s)
        uploads = [
            Upload(
                key_id=key.id,
                file=f"{uuid.uuid4().hex}.{picture.content_type.removeprefix('image/')}",
                expires_at=expires_at,
            )
            for picture in pictures
        ]
        files = {upload.blob: picture.data for upload, picture in zip(uploads, pictures, strict=True)}
        # One at a time: what another is about to keep counts in the share too.
        with self._keeping:
            self._check_share(key, sum(map(len, files.values())))
            keep(files, blobs=self._blobs, settings=self._settings)
        return uploads

    async def _picture(self, url: object, field: str) -> Inline:
        if not isinstance(url, str) or is_address(url):
            raise InvalidField(f"{field} must be a data URL", field=field)
        return await read_inline(url, field=field, limits=self._limits)

    def _check_share(self, key: Key, size_bytes: int) -> None:
        kept_bytes = sum(self._size_bytes(name) for name, _ in self._blobs.names(uploads_prefix(key.id)))
        if kept_bytes + size_bytes > self._settings.upload_max_bytes:
            raise UploadsFull(
                f"With this, {kept_bytes + size_bytes:,} bytes of this key's uploads would be kept, and at most "
                f"{self._settings.upload_max_bytes:,} are; each is kept {self._settings.upload_retention_s:,.0f} s"
            )

    def _size_bytes(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return self._blobs.path(name).stat().st_size
        return 0


def _urls(params: Mapping[str, object]) -> list[object]:
    for name in params:
        if name != FIELD:
            raise UnknownField(f"An upload has no parameter {shorten(name)!r}, only {FIELD}", field=shorten(name))
    urls = params.get(FIELD)
    if not isinstance(urls, list) or not 0 < len(urls) <= MAX_FILES:
        raise InvalidField(f"{FIELD} must be a list of 1 to {MAX_FILES} data URLs", field=FIELD)
    return urls
