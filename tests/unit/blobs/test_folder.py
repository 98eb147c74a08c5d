import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.blobs.folder import Folder

# Puts blobs of one size over and over under few names, each filled with one byte, and says so once it has begun.
PUTTER = """
import itertools, sys
from pathlib import Path
from darkroom.blobs.folder import Folder

folder = Folder(Path(sys.argv[1]))
for number in itertools.count():
    folder.put(f"jobs/7f/job{number % 7}/image_{number % 3}", bytes([number % 256]) * int(sys.argv[2]))
    if number == 2:
        print("begun", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "blobs")


def listed(folder: Folder, prefix: str = "") -> list[str]:
    return [name for name, _ in folder.names(prefix)]


def everything(folder: Folder) -> set[str]:
    """What lies under the root on disk, but for where puts begin."""
    return {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*")} - {".incoming"}


@pytest.mark.parametrize("name", ["a", "jobs/1c/0b1c/image_1", "jobs/1c/0b1c/result-3.webp", "_x/A-b.c"])
def test_put_then_get(folder: Folder, name: str) -> None:
    """What was put is what is got, through a fresh object too, and it lies where path says."""
    folder.put(name, b"abc")
    assert folder.get(name) == b"abc"
    assert Folder(folder.root).path(name).read_bytes() == b"abc"
    assert everything(folder) == {name, *(str(parent) for parent in Path(name).parents)} - {"."}


def test_keep_leaves_the_first(folder: Folder) -> None:
    """What is kept under a name stays, and whoever comes later is given it; nothing else is left behind."""
    assert folder.keep("a/b", b"first") == b"first"
    assert folder.keep("a/b", b"second") == b"first"
    assert folder.get("a/b") == b"first"
    assert list((folder.root / ".incoming").iterdir()) == []


def test_of_many_that_keep_at_once_one_is_the_first(folder: Folder) -> None:
    """All of them are given the same bytes, whole, also where the folder is being made and taken away."""
    for number in range(20):
        name = f"jobs/7f/{number}/image"
        with ThreadPoolExecutor(4) as pool:
            kept = set(pool.map(lambda byte, name=name: folder.keep(name, bytes([byte]) * 1000), range(4)))
        assert kept == {folder.get(name)}


def test_put_replaces(folder: Folder) -> None:
    """A second put under a name takes the first one's place."""
    folder.put("a/b", b"first")
    folder.put("a/b", b"")
    assert folder.get("a/b") == b""


def test_absent(folder: Folder) -> None:
    """A name without a blob, a folder's among them, is FileNotFoundError; deleting it is fine."""
    folder.put("a/b/c", b"")
    for name in ("x", "a/x", "a/b", "a/b/c/d"):
        with pytest.raises(FileNotFoundError):
            folder.get(name)
        with pytest.raises(FileNotFoundError):
            folder.path(name)
    folder.delete("x/y/")
    folder.delete("a/b/c/d")
    assert listed(folder) == ["a/b/c"]


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "a/./b", ".incoming/x", "a/.hidden", "a//b", "a/",
        "-rf", "a b", "a\\b", "a\x00b", "a\n", "ä", "a:b", "~", "a/" * 300 + "a",
    ],
)  # fmt: skip
def test_names_are_checked(folder: Folder, name: str) -> None:
    """A name that could lead outside, hide, or differ between platforms is refused by every method."""
    for call in (lambda: folder.put(name, b""), lambda: folder.get(name), lambda: folder.path(name)):
        with pytest.raises(ValueError, match="not a blob's name"):
            call()
    if name not in ("", "a/"):
        with pytest.raises(ValueError, match="not a blob's name"):
            list(folder.names(name))
    if name != "a/":
        with pytest.raises(ValueError, match="not a blob's name"):
            folder.delete(name)
    assert not everything(folder)


@given(name=st.text(alphabet="./\\ab-_\x00~é ", max_size=12))
def test_no_name_leads_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Whatever the name, a put is refused or stays under the root and is listed under that very name."""
    folder = Folder(tmp_path_factory.getbasetemp() / "names" / "blobs")
    try:
        folder.put(name, b"x")
    except (ValueError, NotADirectoryError, IsADirectoryError):
        pass
    else:
        assert name in listed(folder)
        folder.delete(name)
    assert [path.name for path in folder.root.parent.iterdir()] == ["blobs"]


def test_private(folder: Folder) -> None:
    """Pictures are their owner's: no one else on the machine can read them."""
    folder.put("a/b", b"x")
    assert folder.path("a/b").stat().st_mode & 0o077 == 0
    assert folder.path("a/b").parent.stat().st_mode & 0o077 == 0


def test_delete_takes_what_is_under_it_and_empty_parents(folder: Folder) -> None:
    """Deleting a job's folder takes all its blobs and each parent it leaves empty, and nothing beside."""
    for name in ("jobs/1/a/x", "jobs/1/a/y", "jobs/1/ab/x", "jobs/2/c/x"):
        folder.put(name, b"")
    folder.delete("jobs/1/a/")
    assert listed(folder) == ["jobs/1/ab/x", "jobs/2/c/x"]
    assert not (folder.root / "jobs/1/a").exists()
    folder.delete("jobs/1/ab/x")
    assert not (folder.root / "jobs/1").exists()
    folder.delete("jobs/2")
    assert not everything(folder)
    folder.put("jobs/2/c/x", b"again")
    assert folder.get("jobs/2/c/x") == b"again"


def test_names_are_in_order_with_their_time(folder: Folder) -> None:
    """Names lists blobs alone, under the folder asked for, with the time of their last put."""
    for name in ("b/2", "b/10", "a/1/x", "a/1/y", "ab"):
        folder.put(name, b"")
    os.utime(folder.path("a/1/x"), (1000, 1000.5))
    assert listed(folder) == ["a/1/x", "a/1/y", "ab", "b/10", "b/2"]
    assert dict(folder.names("a"))["a/1/x"] == 1000.5
    assert listed(folder, "a/1/") == ["a/1/x", "a/1/y"]
    assert listed(folder, "nothing/here") == []
    assert listed(folder, "ab") == []


def test_names_while_they_go(folder: Folder) -> None:
    """Blobs deleted during the listing end nothing but their own listing."""
    for number in range(5):
        folder.put(f"a/{number}/x", b"")
    found = folder.names()
    assert next(found)[0] == "a/0/x"
    folder.delete("a")
    assert list(found) == []


def test_failed_put_leaves_what_was_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that the disk refuses raises, keeps the blob before it, and leaves no file of its own."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    folder.put("a/b", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.put("a/b", b"after")
    assert folder.get("a/b") == b"before"
    assert not list((folder.root / ".incoming").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which file a descriptor is")
def test_durable_before_it_returns(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before it gets its name, and then every folder on its way, innermost first."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(folder.root.resolve()).as_posix())
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        done.append("named")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    folder.put("a/b/c", b"x")
    assert re.fullmatch(r"\.incoming/[0-9a-f]{32}", done[0])
    assert done[1:] == ["named", "a/b", "a", "."]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which file a descriptor is")
def test_a_new_folder_is_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that holds the root is synced before anything is put."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    Folder(tmp_path / "blobs")
    assert synced == [tmp_path.resolve()]


def test_what_can_be_no_blob_is_passed_over(folder: Folder) -> None:
    """Files that somebody else has put under a root, named or nested as no blob is, end no listing."""
    folder.put("z", b"x")
    for name in ("-a", ".hidden", "with space", "/".join(["d" * 200] * 3)):
        path = folder.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert listed(folder) == ["z"]


def test_clean(folder: Folder) -> None:
    """Unfinished files and empty folders go once they are old; young ones, and blobs of any age, stay."""
    folder.put("a/b", b"x")
    unfinished, empty, young = folder.root / ".incoming/0f", folder.root / "c/d", folder.root / "e"
    unfinished.write_bytes(b"half")
    (folder.root / ".incoming/1e").write_bytes(b"half")
    empty.mkdir(parents=True)
    young.mkdir()
    for path in (unfinished, empty, empty.parent, folder.path("a/b"), folder.root / "a", folder.root / ".incoming"):
        os.utime(path, (1000, 1000))
    assert listed(folder) == ["a/b"]
    assert folder.clean(older_than_s=3600) == 2
    assert everything(folder) == {"a", "a/b", "c", "e", ".incoming/1e"}
    assert folder.clean(older_than_s=-1) == 3
    assert everything(folder) == {"a", "a/b"}
    folder.put("c/d", b"")


def test_many_at_once(folder: Folder) -> None:
    """Puts and deletes that share parents don't disturb one another: every put that ended last is there."""
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            folder.delete("jobs/1c/gone")
            folder.clean(older_than_s=60)

    def put(number: int) -> None:
        for turn in range(20):
            folder.put(f"jobs/1c/{number}/x", bytes([turn]))
            folder.put("jobs/1c/gone/x", b"")
            if turn < 19:
                folder.delete(f"jobs/1c/{number}")

    with ThreadPoolExecutor(6) as pool:
        deleters = [pool.submit(delete) for _ in range(2)]
        for putter in [pool.submit(put, number) for number in range(4)]:
            putter.result(timeout=60)
        stop.set()
        for deleter in deleters:
            deleter.result(timeout=60)
    assert [folder.get(f"jobs/1c/{number}/x") for number in range(4)] == [b"\x13"] * 4


def test_kill_in_the_middle(folder: Folder) -> None:
    """After kill -9 at any moment each name has a whole blob or none, and what is left over can be cleaned away."""
    size_bytes = 2_000_000
    unfinished = 0
    for kill in itertools.count(1):
        with subprocess.Popen(
            [sys.executable, "-c", PUTTER, str(folder.root), str(size_bytes)], stdout=subprocess.PIPE, text=True
        ) as putter:
            assert putter.stdout is not None
            assert putter.stdout.readline() == "begun\n"
            os.kill(putter.pid, signal.SIGKILL)
        for name in listed(folder):
            blob = folder.get(name)
            assert blob == blob[:1] * size_bytes, name
        unfinished += len(list((folder.root / ".incoming").iterdir()))
        folder.clean(older_than_s=-1)
        assert not list((folder.root / ".incoming").iterdir())
        assert everything(folder) == {
            part for name in listed(folder) for part in (name, *map(str, Path(name).parents))
        } - {"."}
        if kill >= 8 and unfinished:
            break
        assert kill < 100, "no kill fell into a put: make the blobs larger"
