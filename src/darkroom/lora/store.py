"""LoRA files kept by what is in them: each there whole, under the SHA-256 of its bytes, or not at all.

Any number of threads and processes may use the same folder at once; it must be one file system with locks.
"""

import asyncio
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from darkroom.disk import sync
from darkroom.lora.address import SUFFIX

FRESH_S: Final = 600
"""What was used within these seconds stays: a job that has been promised it may be about to open it."""
ABANDONED_S: Final = 24 * 3600
"""Part of a file that nobody has gone on with for so long is deleted."""
NOTE_BYTES: Final = 2**24
"""A download that is killed has no more than this to fetch again."""

_INCOMING: Final = ".incoming"
_PART: Final = ".part"
_NOTE: Final = ".note"
_READ_BYTES: Final = 2**20
_LOCK_POLL_S: Final = 0.05
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class NoRoom(Exception):
    """Even without all that may go, there is no place for the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """size_bytes: with all that was made of it. used_at: seconds since the epoch."""

    digest: str
    size_bytes: int
    used_at: float


class Incoming:
    """A file on its way into the store. Whoever holds it is the only one who fetches this.

    validator: of the version whose first bytes are here, by which its host can be asked for the rest; None where it
    must begin anew. While there is one, what has come is noted beside the file time and again.
    """

    size_bytes: int
    validator: str | None

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._note = path.with_suffix(_NOTE)
        self.path = path
        self._begin()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)
        if self.validator and self.size_bytes >= self._noted_bytes + NOTE_BYTES:
            self.note()

    def note(self) -> None:
        """Write down what is here, for whoever goes on with it. Raises OSError."""
        self._file.flush()
        noted = {"validator": self.validator, "size_bytes": self.size_bytes, "digest": self.digest}
        self._note.write_text(json.dumps(noted))
        self._noted_bytes = self.size_bytes

    def resume(self) -> None:
        """Go on from what was noted; from nothing if that is not what lies here, for the power may have failed before
        the disk had it all."""
        try:
            noted = json.loads(self._note.read_bytes())
        except (FileNotFoundError, ValueError):
            self.restart()
            return
        self._file.seek(0)
        while data := self._file.read(min(_READ_BYTES, noted["size_bytes"] - self.size_bytes)):
            self._hash.update(data)
            self.size_bytes += len(data)
        if self.digest != noted["digest"]:
            self.restart()
            return
        self._file.truncate()
        self._noted_bytes, self.validator = self.size_bytes, noted["validator"]

    def restart(self) -> None:
        """Empty again, for another try."""
        self._note.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self._begin()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _begin(self) -> None:
        self._hash = hashlib.sha256()
        self._noted_bytes = 0
        self.size_bytes = 0
        self.validator = None


class Store:
    """budget_bytes: how much is kept, all told. reserve_bytes: left free on the disk. clock: seconds since the epoch,
    as the file system counts them."""

    def __init__(
        self, root: Path, *, budget_bytes: int, reserve_bytes: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self._budget_bytes = budget_bytes
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._incoming = root / _INCOMING
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()

    def path(self, digest: str) -> Path | None:
        """Where the file lies, now counted as used; None if it is not here."""
        path = self._path(digest)
        try:
            os.utime(path, (self._clock(), path.stat().st_mtime))
        except FileNotFoundError:
            return None
        return path

    def beside(self, digest: str, suffix: str) -> Path:
        """Where something made of the file is kept, and goes with it. suffix: like ".canonical.safetensors"."""
        return self._path(digest).with_name(f"{digest}{suffix}")

    def kept(self) -> list[Kept]:
        """What is here, the longest unused first."""
        found = [self._kept(path) for path in self.root.glob(f"??/{'?' * 64}{SUFFIX}")]
        return sorted((kept for kept in found if kept), key=lambda kept: kept.used_at)

    @asynccontextmanager
    async def incoming(self, key: str) -> AsyncIterator[Incoming]:
        """A file to write to, once nobody else has one under the same key; with what has come of it before, if that can
        be gone on with. Unless it is kept, or has a validator by then, it is gone after.

        key: the file's name for as long as nobody knows its digest.
        """
        path = self._incoming / f"{hashlib.sha256(key.encode()).hexdigest()}{_PART}"
        # The lock is the system's, which has no event to wait for.
        while (file := _lock(path)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_POLL_S)
        with file:
            incoming = Incoming(file, path)
            await asyncio.to_thread(incoming.resume)
            try:
                yield incoming
            finally:
                # Once it has been kept, the name may be the next one's already.
                if _is_at(file, path):
                    if incoming.validator is None:
                        _delete(path)
                    else:
                        incoming.note()

    def keep(self, incoming: Incoming) -> Path:
        """Put what has come under its digest. On return it is on disk; a kill at any moment leaves it whole or not
        there. Raises OSError."""
        incoming.sync()
        path = self._path(incoming.digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.utime(incoming.path, (self._clock(), self._clock()))
        incoming.path.with_suffix(_NOTE).unlink(missing_ok=True)
        incoming.path.replace(path)
        for folder in (path.parent, self.root):
            sync(folder)
        return path

    def make_room(self, size_bytes: int, *, pinned: Collection[str]) -> list[str]:
        """Remove what has been unused for longest until so many bytes more have their place; the digests. What has come
        of files that nobody is fetching goes before.

        What is pinned, or was used just now, stays. Raises `NoRoom`.
        """
        kept, parts_bytes = self.kept(), self._sweep()
        surplus = size_bytes + max(
            sum(one.size_bytes for one in kept) + parts_bytes - self._budget_bytes,
            self._reserve_bytes - shutil.disk_usage(self.root).free,
        )
        if surplus > 0:
            surplus -= parts_bytes - self._sweep(before=math.inf)
        stale_before = self._clock() - FRESH_S
        going = []
        for one in kept:
            if surplus <= 0:
                break
            if one.digest not in pinned and one.used_at < stale_before:
                going.append(one)
                surplus -= one.size_bytes
        if surplus > 0:
            raise NoRoom
        for one in going:
            self.remove(one.digest)
        return [one.digest for one in going]

    def remove(self, digest: str) -> None:
        """The file and all that was made of it. Whoever has it open keeps reading it."""
        for path in self._family(digest):
            path.unlink(missing_ok=True)

    def _kept(self, path: Path) -> Kept | None:
        with suppress(FileNotFoundError):
            return Kept(
                digest=path.name.removesuffix(SUFFIX),
                size_bytes=sum(one.stat().st_size for one in self._family(path.name.removesuffix(SUFFIX))),
                used_at=path.stat().st_atime,
            )
        return None

    def _family(self, digest: str) -> Iterator[Path]:
        return self._path(digest).parent.glob(f"{digest}.*")

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"not a SHA-256: {digest!r}")
        return self.root / digest[:2] / f"{digest}{SUFFIX}"

    def _sweep(self, before: float | None = None) -> int:
        """Delete what has come of files that nobody is fetching, if it can't be gone on with, or nobody has since
        `before` (seconds since the epoch; None: for `ABANDONED_S`). How many bytes of files to come are left."""
        before = self._clock() - ABANDONED_S if before is None else before
        left_bytes = 0
        for path in self._incoming.glob(f"*{_PART}"):
            if file := _lock(path):
                with file:
                    if os.fstat(file.fileno()).st_mtime < before or not path.with_suffix(_NOTE).exists():
                        _delete(path)
            with suppress(FileNotFoundError):
                left_bytes += path.stat().st_size
        return left_bytes


def _delete(part: Path) -> None:
    part.with_suffix(_NOTE).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _lock(path: Path) -> IO[bytes] | None:
    """The file, open and ours until it is closed; None while it is somebody else's.

    The lock is the system's: it goes with its process, however that ends.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    # Between opening and locking, its owner may have kept or deleted it: then this is no longer the one to lock.
    if _is_at(file, path):
        return file
    file.close()
    return None


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
