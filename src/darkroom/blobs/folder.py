"""Blobs in a folder: immutable files under relative names, each there whole or not at all."""

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from darkroom.disk import sync

# What is being written lies here until it is whole; no name can begin with a dot.
_INCOMING = ".incoming"
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_MAX_NAME_CHARS = 512


class Folder:
    """Any number of processes may use the same folder at once; it must be one file system, with hard links.

    Names are like jobs/7f/ID/image_1: parts of ASCII letters, digits, `.`, `_` and `-`, none beginning with a
    dot or dash. Any other name is a mistake of the caller's and raises ValueError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / _INCOMING
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(root.parent)

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, in place of what was there. On return it is on disk; a kill at any moment leaves
        the old blob or the new one, whole. Raises OSError (no space, say), leaving what was there."""
        self._write(name, data, Path.replace)

    def keep(self, name: str, data: bytes) -> bytes:
        """`put`, unless there is a blob of this name: the first one stays. What is kept."""
        try:
            self._write(name, data, os.link)
        except FileExistsError:
            return self.get(name)
        return data

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        return self.path(name).read_bytes()

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def path(self, name: str) -> Path:
        """Where the blob lies, to be read in place. Raises FileNotFoundError."""
        path = self._path(name)
        if not path.is_file():
            raise FileNotFoundError(f"no blob {name}")
        return path

    def delete(self, prefix: str) -> None:
        """Delete the blob or all blobs under the folder of this name, and the folders that this leaves empty. Nothing
        there is fine."""
        path = self._path(prefix.removesuffix("/"))
        _remove(path)
        folder = path.parent
        while folder != self.root and _remove_if_empty(folder):
            folder = folder.parent

    def names(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """Every blob under the folder `prefix` ("": all), in order, with when it was put (seconds since the epoch).

        Blobs that come or go meanwhile may be among them or not.
        """
        folder = self._path(prefix.removesuffix("/")) if prefix else self.root
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = Path(entry.path).relative_to(self.root).as_posix()
            if not _is_name(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self.names(name)
            else:
                with suppress(FileNotFoundError):
                    yield name, entry.stat(follow_symlinks=False).st_mtime

    def clean(self, *, older_than_s: float) -> int:
        """Delete what puts that were killed left behind: unfinished files, and empty folders, untouched for that long.
        How many there were."""
        before = time.time() - older_than_s
        count = 0
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
        for place, _, _ in os.walk(self.root, topdown=False):
            folder = Path(place)
            with suppress(FileNotFoundError):
                if folder not in (self.root, self._incoming) and folder.stat().st_mtime < before:
                    count += _remove_if_empty(folder)
        return count

    def _path(self, name: str) -> Path:
        if not _is_name(name):
            raise ValueError(f"not a blob's name: {name!r}")
        return self.root / name

    def _write(self, name: str, data: bytes, publish: Callable[[Path, Path], object]) -> None:
        path = self._path(name)
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, path, publish)
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, path: Path, publish: Callable[[Path, Path], object]) -> None:
        folders = path.parents[: -len(self.root.parents) - 1]
        while True:
            try:
                for folder in reversed(folders):
                    with suppress(FileExistsError):
                        folder.mkdir(mode=0o700)
                publish(temporary, path)
                break
            except FileNotFoundError:
                # A `delete` took a still empty folder away: make it again. Without the file there is nothing to do.
                if not temporary.exists():
                    raise
        # Up to the root, since a folder that was there may be another process's that has yet to sync it.
        for folder in (*folders, self.root):
            with suppress(FileNotFoundError):
                sync(folder)


def _is_name(name: str) -> bool:
    return len(name) <= _MAX_NAME_CHARS and _NAME.fullmatch(name) is not None


def _remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it now; what others put or delete meanwhile is no error."""
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        return
    for entry in entries:
        _remove(Path(entry.path))
    _remove_if_empty(path)


def _remove_if_empty(folder: Path) -> bool:
    """Whether it is gone. rmdir itself finds out if it is empty, with nothing between the question and the deed."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True
