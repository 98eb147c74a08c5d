import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.lora import store as store_module
from darkroom.lora.store import ABANDONED_S, FRESH_S, Incoming, NoRoom, Store
from hosts import digest_of

KB = 1000


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "loras", budget_bytes=10 * KB, clock=clock)


def put(store: Store, data: bytes, *, key: str = "key") -> str:
    async def main() -> str:
        async with store.incoming(key) as incoming:
            incoming.write(data)
            store.keep(incoming)
            return incoming.digest

    return asyncio.run(main())


def begin(store: Store, data: bytes, *, key: str = "key") -> Path:
    """The first bytes of a version, left in the middle."""

    async def main() -> Path:
        async with store.incoming(key) as incoming:
            incoming.write(data)
            incoming.validator = '"v1"'
            return incoming.path

    return asyncio.run(main())


def found(store: Store, *, key: str = "key") -> tuple[bytes, str | None]:
    """What a next one has to go on with, and its validator."""

    async def main() -> tuple[bytes, str | None]:
        async with store.incoming(key) as incoming:
            incoming.sync()
            there = incoming.path.read_bytes()
            assert (incoming.size_bytes, incoming.digest) == (len(there), digest_of(there))
            return there, incoming.validator

    return asyncio.run(main())


def left_over(store: Store) -> list[Path]:
    return [*(store.root / ".incoming").iterdir()]


def test_kept_under_its_digest(store: Store) -> None:
    """A file lies under the SHA-256 of its bytes, two characters of it as folder, and nothing else is left."""
    digest = put(store, b"weights")
    assert digest == digest_of(b"weights")
    assert store.path(digest) == store.root / digest[:2] / f"{digest}.safetensors"
    assert store.path(digest).read_bytes() == b"weights"
    assert not left_over(store)
    assert put(store, b"weights") == digest
    assert [one.digest for one in store.kept()] == [digest]


def test_what_is_not_kept_is_gone(store: Store) -> None:
    """A download that fails, or is cancelled, leaves nothing."""

    async def main() -> None:
        async with store.incoming("key") as incoming:
            incoming.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert not left_over(store)
    assert not store.kept()
    assert store.path(digest_of(b"half")) is None


def test_a_second_try_begins_anew(store: Store) -> None:
    """`restart` forgets what was written, in the file and in the digest."""

    async def main() -> str:
        async with store.incoming("key") as incoming:
            incoming.write(b"a longer first try")
            incoming.restart()
            incoming.write(b"second")
            store.keep(incoming)
            return incoming.digest

    digest = asyncio.run(main())
    assert digest == digest_of(b"second")
    assert store.path(digest).read_bytes() == b"second"


def test_what_came_of_a_version_is_gone_on_with(store: Store) -> None:
    """By whoever wants the file next, in this process or another: it has the bytes, their digest and their version; the
    whole is kept, and nothing else is left."""
    begin(store, b"first half, ")
    other = Store(store.root, budget_bytes=10 * KB)
    assert found(other) == (b"first half, ", '"v1"')
    digest = put(other, b"second half")
    assert digest == digest_of(b"first half, second half")
    assert store.path(digest).read_bytes() == b"first half, second half"
    assert not left_over(store)
    assert found(store) == (b"", None)


def test_it_is_noted_time_and_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a kill costs so many bytes at most; what has been written since the last note is not trusted."""
    monkeypatch.setattr(store_module, "NOTE_BYTES", 4)

    async def main() -> None:
        async with store.incoming("key") as incoming:
            incoming.validator = '"v1"'
            for piece in (b"ab", b"cd", b"ef"):
                incoming.write(piece)
            monkeypatch.setattr(Incoming, "note", lambda _: None)

    asyncio.run(main())
    assert found(store) == (b"abcd", '"v1"')


@pytest.mark.parametrize("harm", ["shorter", "other bytes", "no note", "half a note"])
def test_what_is_not_as_noted_is_not_gone_on_with(store: Store, harm: str) -> None:
    """After a power cut, say: the next one begins with an empty file."""
    part = begin(store, b"first half")
    note = part.with_suffix(".note")
    match harm:
        case "shorter":
            part.write_bytes(b"first")
        case "other bytes":
            part.write_bytes(b"first" + bytes(5))
        case "no note":
            note.unlink()
        case "half a note":
            note.write_bytes(note.read_bytes()[:20])
    assert found(store) == (b"", None)
    assert not left_over(store)


@pytest.mark.parametrize("name", ["", "ab", "../" * 20 + "x" * 4, "g" * 64, "A" * 64])
def test_only_digests_are_names(store: Store, name: str) -> None:
    """No other text leads to a path."""
    with pytest.raises(ValueError, match="not a SHA-256"):
        store.path(name)


def test_one_at_a_time(store: Store) -> None:
    """Of many who want the same, one writes; each of the others comes in when the one before has left."""
    inside = most = 0

    async def one() -> None:
        nonlocal inside, most
        async with store.incoming("same") as incoming:
            inside += 1
            most = max(most, inside)
            assert incoming.path.stat().st_size == 0
            incoming.write(b"x")
            await asyncio.sleep(0.01)
            store.keep(incoming)
            inside -= 1

    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(5)))

    asyncio.run(main())
    assert most == 1
    assert not left_over(store)


def test_different_files_at_once(store: Store) -> None:
    """Downloads of different files don't wait for each other."""

    async def main() -> None:
        async with store.incoming("a") as first, asyncio.timeout(5), store.incoming("b") as second:
            assert first.path != second.path

    asyncio.run(main())


def test_cancelled_while_waiting(store: Store) -> None:
    """Whoever gives up waiting takes nothing from the one who writes."""

    async def main() -> None:
        async with store.incoming("same") as incoming:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), store.incoming("same"):
                    pass
            incoming.write(b"x")
            store.keep(incoming)

    asyncio.run(main())
    assert store.path(digest_of(b"x"))


class TestRoom:
    def test_the_longest_unused_go_first(self, store: Store, clock: Clock) -> None:
        """Room is made by removing what was used longest ago, and no more than must go."""
        old, newer, used = (put(store, bytes([number]) * 3 * KB) for number in range(3))
        for digest in (old, newer, used):
            clock.now += 1
            store.path(digest)
        clock.now += 1
        store.path(old)
        clock.now += FRESH_S + 1
        assert store.make_room(4 * KB, pinned=()) == [newer]
        assert {one.digest for one in store.kept()} == {old, used}
        assert store.make_room(4 * KB, pinned=()) == []

    def test_pins_stay(self, store: Store, clock: Clock) -> None:
        """What is pinned never goes, were it the only way."""
        pinned, other = put(store, b"p" * 6 * KB), put(store, b"o" * 3 * KB)
        clock.now += FRESH_S + 1
        assert store.make_room(4 * KB, pinned={pinned}) == [other]
        with pytest.raises(NoRoom):
            store.make_room(5 * KB, pinned={pinned})
        assert store.path(pinned)

    def test_what_was_just_used_stays(self, store: Store, clock: Clock) -> None:
        """A file that a job was promised a moment ago is there when it opens it; without room nothing goes at all."""
        old, fresh = put(store, b"o" * 3 * KB), put(store, b"f" * 6 * KB)
        clock.now += FRESH_S + 1
        store.path(fresh)
        with pytest.raises(NoRoom):
            store.make_room(8 * KB, pinned=())
        assert store.path(old)

    def test_larger_than_the_store(self, store: Store) -> None:
        """A file over the whole budget has no place."""
        with pytest.raises(NoRoom):
            store.make_room(10 * KB + 1, pinned=())

    def test_what_was_made_of_a_file_goes_with_it(self, store: Store, clock: Clock) -> None:
        """It counts as the file's own, and leaves no rest."""
        digest = put(store, b"x" * 3 * KB)
        beside = store.beside(digest, ".canonical.safetensors")
        beside.write_bytes(b"y" * 6 * KB)
        assert [one.size_bytes for one in store.kept()] == [9 * KB]
        clock.now += FRESH_S + 1
        assert store.make_room(2 * KB, pinned=()) == [digest]
        assert not beside.exists()
        assert not store.path(digest)

    def test_what_came_of_others_counts_and_goes_first(self, store: Store, clock: Clock) -> None:
        """Part of a file takes room as files do; where that is wanting it goes before any file, unless it is coming."""
        digest = put(store, b"x" * 4 * KB)
        clock.now += FRESH_S + 1
        begin(store, b"y" * 3 * KB, key="cut")

        async def main() -> None:
            async with store.incoming("coming") as incoming:
                incoming.write(b"z" * 2 * KB)
                incoming.sync()
                assert store.make_room(1 * KB, pinned=()) == []
                assert len(left_over(store)) == 3
                assert store.make_room(2 * KB, pinned=()) == []
                assert left_over(store) == [incoming.path]
                assert store.make_room(5 * KB, pinned=()) == [digest]
                with pytest.raises(NoRoom):
                    store.make_room(9 * KB, pinned=())

        asyncio.run(main())

    def test_the_disks_reserve(self, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither is the disk filled up below its reserve, however large the budget is."""
        store = Store(tmp_path, budget_bytes=10**15, reserve_bytes=5 * KB, clock=clock)
        digest = put(store, b"x" * 3 * KB)
        clock.now += FRESH_S + 1
        usage = type("usage", (), {"free": 7 * KB})
        monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)
        assert store.make_room(2 * KB, pinned=()) == []
        assert store.make_room(4 * KB, pinned=()) == [digest]

    def test_an_open_file_is_read_to_its_end(self, store: Store, clock: Clock) -> None:
        """Whoever has it open is not disturbed when it goes."""
        digest = put(store, b"x" * 3 * KB)
        with store.path(digest).open("rb") as file:
            store.remove(digest)
            assert store.path(digest) is None
            assert len(file.read()) == 3 * KB


def _write_and_wait(root: str, begun: "multiprocessing.Event") -> None:
    async def main() -> None:
        async with Store(Path(root), budget_bytes=10**9).incoming("same") as incoming:
            incoming.write(b"half a file")
            begun.set()
            await asyncio.sleep(60)

    asyncio.run(main())


def test_another_process_waits_and_a_killed_one_lets_go(store: Store) -> None:
    """A download is one among processes; when its process is killed, the next one begins with an empty file."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=_write_and_wait, args=(str(store.root), begun))
    process.start()
    assert begun.wait(20)

    async def wait() -> None:
        async with asyncio.timeout(0.2), store.incoming("same"):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(left_over(store)) == 1
    digest = put(store, b"whole", key="same")
    assert store.path(digest).read_bytes() == b"whole"
    assert not left_over(store)


def test_left_overs_are_cleaned_away(store: Store) -> None:
    """What a killed process was writing is gone when room is next made; what somebody writes is not."""
    (store.root / ".incoming" / "dead.part").write_bytes(b"x")
    resumable = begin(store, b"x", key="cut")

    async def main() -> None:
        async with store.incoming("alive") as incoming:
            store.make_room(1, pinned=())
            assert {*left_over(store)} == {incoming.path, resumable, resumable.with_suffix(".note")}

    asyncio.run(main())


def test_what_nobody_goes_on_with_is_swept(store: Store, clock: Clock) -> None:
    """When a store is opened, or room is made: a day after its last byte came."""
    for sweep in (
        lambda: Store(store.root, budget_bytes=10 * KB, clock=clock),
        lambda: store.make_room(0, pinned=()),
    ):
        part = begin(store, b"x")
        os.utime(part, (clock.now, clock.now))
        clock.now += ABANDONED_S - 1
        sweep()
        assert len(left_over(store)) == 2
        clock.now += 2
        sweep()
        assert not left_over(store)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from darkroom.lora import store
from darkroom.lora.index import Index
from darkroom.blobs.folder import Folder

root, when = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def die(event, args):
    global calls
    if event in ("os.rename", "os.link", "open", "os.mkdir", "os.remove", "os.utime") and str(root) in str(args[0]):
        calls += 1
        if calls == when:
            os.kill(os.getpid(), 9)

async def main():
    kept = store.Store(root, budget_bytes=10**9)
    async with kept.incoming("key") as incoming:
        sys.addaudithook(die)
        incoming.write(b"weights")
        kept.keep(incoming)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", range(1, 7))
def test_killed_at_any_moment(tmp_path: Path, when: int) -> None:
    """Whenever the process is killed, there is the whole file or none, and the next download works."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(when)], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    store = Store(tmp_path, budget_bytes=10**9)
    digest = digest_of(b"weights")
    assert [one.digest for one in store.kept()] in ([], [digest])
    assert all(path.read_bytes() == b"weights" for path in tmp_path.glob("??/*"))
    assert put(store, b"weights") == digest
    store.make_room(0, pinned=())
    assert not left_over(store)
