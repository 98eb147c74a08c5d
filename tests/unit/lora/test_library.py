"""Resolving, fetching and keeping, from a real host on loopback."""

import asyncio
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from darkroom.edit import LoraRef
from darkroom.errors import (
    AdapterUnavailable,
    DarkroomError,
    InvalidField,
    LoraChanged,
    LoraDenied,
    LoraForbidden,
    LoraHeaderInvalid,
    LoraNoRoom,
    LoraNotFound,
    LoraNotSafetensors,
    LoraRedirectForbidden,
    LoraTooLarge,
    LoraTruncated,
    LoraUnreachable,
)
from darkroom.fetch.transport import Transport
from darkroom.lora import library as library_module
from darkroom.lora.index import Installed
from darkroom.lora.library import AskedLora, Library
from darkroom.lora.store import FRESH_S
from darkroom.settings import Settings
from darkroom.stores import open_loras
from hosts import PIECE_BYTES, FileHost, digest_of, file_host, lora_file

FIELD = "lora_2_url"
COMMIT, LATER = "a" * 40, "b" * 40
FIRST, SECOND = lora_file(seed=1), lora_file(seed=2)
LARGE = lora_file(rank=32, side=1024)
"""Half a megabyte."""


def mended(library: Library, host: FileHost, path: str, ref: LoraRef, body: bytes, **now: object) -> bytes:
    """What comes of a download that breaks off in the middle, where then is this."""
    broken = host.files[path]
    broken.stop_after, broken.gate = 7 * len(broken.body) // 8, threading.Event()

    def mend() -> None:
        assert broken.knocked.wait(20)
        host.put(path, body, **now)
        assert broken.gate
        broken.gate.set()

    thread = threading.Thread(target=mend)
    thread.start()
    try:
        return opened(library, ref)
    finally:
        thread.join()


class Inside(AbstractResolver):
    """A name server that sends everyone to a private address."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="10.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None: ...


def resolve(library: Library, *addresses: str) -> tuple[LoraRef, ...]:
    asked = [AskedLora(field=FIELD, named=address, is_preset=False) for address in addresses]
    return asyncio.run(library.resolve(asked))


def opened(library: Library, ref: LoraRef) -> bytes:
    return asyncio.run(library.open(ref)).path.read_bytes()


def kept(library: Library) -> set[str]:
    return {one.digest for one in library.store.kept()}


def came_of_it(library: Library) -> list[Path]:
    """What has come of files that are not whole."""
    return [*(library.store.root / ".incoming").iterdir()]


def bodies(host: FileHost, path: str) -> int:
    """How often the whole of a file was asked for."""
    return sum(question.path == path and "Range" not in question.headers for question in host.asked)


class TestPins:
    def test_a_link_with_an_etag(self, library: Library, host: FileHost) -> None:
        """A submit learns the version and reads the header; the worker fetches that version, once."""
        url = host.put("a.safetensors", LARGE)
        (ref,) = resolve(library, url)
        assert ref == LoraRef(
            field=FIELD, name="a.safetensors", strength=1.0, url=url, validator=host.files["a.safetensors"].etag
        )
        assert host.sent_bytes <= 2**18
        assert not kept(library)
        assert opened(library, ref) == LARGE
        assert opened(library, ref) == LARGE
        assert bodies(host, "a.safetensors") == 1
        assert kept(library) == {digest_of(LARGE)}

    def test_revalidated_not_downloaded_again(self, library: Library, host: FileHost) -> None:
        """What is known is asked for with its ETag, and nothing is sent again; its digest is in the reference now."""
        url = host.put("a.safetensors", FIRST)
        opened(library, resolve(library, url)[0])
        sent = host.sent_bytes
        (ref,) = resolve(library, url)
        assert ref.digest == digest_of(FIRST)
        assert host.asked[-1].headers["If-None-Match"] == host.files["a.safetensors"].etag
        assert host.sent_bytes == sent
        assert opened(library, ref) == FIRST
        assert bodies(host, "a.safetensors") == 1

    def test_last_modified_will_do(self, library: Library, host: FileHost) -> None:
        """A host without ETags is taken by its dates."""
        url = host.put("a.safetensors", FIRST, etag=None, modified="Sat, 01 Feb 2025 10:00:00 GMT")
        opened(library, resolve(library, url)[0])
        assert resolve(library, url)[0].digest == digest_of(FIRST)
        assert host.asked[-1].headers["If-Modified-Since"] == "Sat, 01 Feb 2025 10:00:00 GMT"

    def test_a_host_without_versions(self, library: Library, host: FileHost) -> None:
        """Where nothing else says which file it is, the submit fetches it: the request is held to its bytes."""
        url = host.put("a.safetensors", FIRST, etag=None)
        (ref,) = resolve(library, url)
        assert ref.digest == digest_of(FIRST)
        host.put("a.safetensors", SECOND, etag=None)
        assert opened(library, ref) == FIRST
        assert resolve(library, url)[0].digest == digest_of(SECOND)

    def test_the_file_changes_while_the_job_waits(self, library: Library, host: FileHost) -> None:
        """Fetched before: the job gets its own file still. Not fetched: it fails rather than take another."""
        url = host.put("a.safetensors", FIRST)
        (before,) = resolve(library, url)
        assert opened(library, before) == FIRST
        (held,) = resolve(library, url)
        host.put("a.safetensors", SECOND)
        assert opened(library, before) == opened(library, held) == FIRST
        assert opened(library, resolve(library, url)[0]) == SECOND

        (waiting,) = resolve(library, host.put("b.safetensors", FIRST))
        host.put("b.safetensors", LARGE, gate=threading.Event())
        with pytest.raises(LoraChanged, match=f"{FIELD}: .*another file now"):
            opened(library, waiting)

    def test_evicted_and_changed(self, library: Library, host: FileHost) -> None:
        """A job's file that is neither here nor at its address any more fails it; one with the same bytes will do."""
        url = host.put("a.safetensors", FIRST)
        opened(library, resolve(library, url)[0])
        (held,) = resolve(library, url)
        library.store.remove(digest_of(FIRST))
        host.put("a.safetensors", FIRST, etag='"renamed"')
        assert opened(library, held) == FIRST
        library.store.remove(digest_of(FIRST))
        host.put("a.safetensors", SECOND)
        with pytest.raises(LoraChanged):
            opened(library, held)
        assert not kept(library)

    def test_the_same_bytes_from_two_addresses(self, library: Library, host: FileHost) -> None:
        """Are kept once."""
        for name in ("a", "b"):
            opened(library, resolve(library, host.put(f"{name}.safetensors", FIRST))[0])
        assert kept(library) == {digest_of(FIRST)}

    def test_a_silent_host(self, library: Library, host: FileHost) -> None:
        """A file that is here is taken as it was while its host is down; one that is not is unreachable."""
        url = host.put("a.safetensors", FIRST)
        opened(library, resolve(library, url)[0])
        host.put("a.safetensors", status=503)
        assert resolve(library, url)[0].digest == digest_of(FIRST)
        with pytest.raises(LoraUnreachable, match=r"answered 503 \(3 tries\)"):
            resolve(library, host.put("b.safetensors", status=503))

    def test_a_slow_host(self, library: Library, host: FileHost, monkeypatch: pytest.MonkeyPatch) -> None:
        """A submit waits only so long, and says under which field and what to do; a quick host's LoRA is not blamed."""
        monkeypatch.setattr(library_module, "RESOLVE_S", 0.3)
        gate = threading.Event()
        slow = host.put("slow.safetensors", LARGE, etag=None, gate=gate)
        asked = [
            AskedLora(field="lora_2_url", named=host.put("quick.safetensors", FIRST), is_preset=False),
            AskedLora(field="lora_3_url", named=slow, is_preset=False),
        ]
        with pytest.raises(LoraUnreachable, match=r"lora_3_url: .* within 0\.3 s .*darkroom loras fetch") as caught:
            asyncio.run(library.resolve(asked))
        assert caught.value.field == "lora_3_url"

    def test_strength(self, library: Library, host: FileHost) -> None:
        """Is the request's own, or 1."""
        url = host.put("a.safetensors", FIRST)
        asked = [
            AskedLora(field=FIELD, named=url, is_preset=False, strength=strength) for strength in (None, 0.0, -4.0)
        ]
        assert [ref.strength for ref in asyncio.run(library.resolve(asked))] == [1.0, 0.0, -4.0]


class TestHub:
    def test_a_file(self, library: Library, host: FileHost) -> None:
        """Commit and digest are known from one question; the worker asks for that very commit."""
        host.put_on_hub("o/n", "溶图.safetensors", FIRST, commit=COMMIT)
        (ref,) = resolve(library, "o/n/溶图.safetensors")
        assert ref.digest == digest_of(FIRST)
        assert ref.url == f"{host.hub}/o/n/resolve/{COMMIT}/%E6%BA%B6%E5%9B%BE.safetensors"
        host.put_on_hub("o/n", "溶图.safetensors", SECOND, commit=LATER)
        host.put_on_hub("o/n", "溶图.safetensors", FIRST, commit=COMMIT, revision="old")
        assert opened(library, ref) == FIRST
        assert host.asked[-2].path == f"o/n/resolve/{COMMIT}/溶图.safetensors"
        assert resolve(library, "o/n/溶图.safetensors")[0].digest == digest_of(SECOND)

    def test_what_is_here_is_not_fetched(self, library: Library, host: FileHost) -> None:
        """The hub says the digest: a file that came from elsewhere is this one."""
        opened(library, resolve(library, host.put("elsewhere.safetensors", FIRST))[0])
        host.put_on_hub("o/n", "a.safetensors", FIRST, commit=COMMIT)
        host.asked.clear()
        assert opened(library, resolve(library, "o/n/a.safetensors")[0]) == FIRST
        assert all("Range" in question.headers for question in host.asked)

    def test_only_the_hub_is_believed(self, library: Library, host: FileHost) -> None:
        """A stranger's word for a digest opens nobody's file: what is behind the link counts."""
        opened(library, resolve(library, host.put("private.safetensors", FIRST))[0])
        url = host.put("a.safetensors", SECOND, headers={"x-linked-etag": f'"{digest_of(FIRST)}"'})
        (ref,) = resolve(library, url)
        assert ref.digest is None
        assert opened(library, ref) == SECOND

    def test_a_digest_that_is_not_so(self, library: Library, host: FileHost) -> None:
        """A file whose bytes are not what the hub said they are is not kept."""
        host.put_on_hub("o/n", "a.safetensors", FIRST, commit=COMMIT)
        (ref,) = resolve(library, "o/n/a.safetensors")
        host.put(f"cdn/{digest_of(FIRST)}", SECOND)
        with pytest.raises(LoraChanged):
            opened(library, ref)
        assert not kept(library)

    def test_the_only_file(self, library: Library, host: FileHost) -> None:
        """A repository stands for the one file in it."""
        host.put(
            "api/models/o/n/revision/main",
            b'{"siblings": [{"rfilename": "README.md"}, {"rfilename": "a.safetensors"}]}',
        )
        host.put_on_hub("o/n", "a.safetensors", FIRST, commit=COMMIT)
        (ref,) = resolve(library, "o/n")
        assert (ref.name, ref.digest) == ("a.safetensors", digest_of(FIRST))

    @pytest.mark.parametrize(
        ("listing", "kind", "problem"),
        [
            (
                b'{"siblings": [{"rfilename": "b.safetensors"}, {"rfilename": "a.safetensors"}]}',
                InvalidField,
                "o/n/a.saf",
            ),
            (b'{"siblings": [{"rfilename": "a.bin"}]}', InvalidField, "no .safetensors file"),
            (b'{"siblings": [7]}', LoraUnreachable, "lists no files"),
            (b"<html>", LoraUnreachable, "lists no files"),
        ],
    )
    def test_several_files_or_none(
        self, library: Library, host: FileHost, listing: bytes, kind: type[DarkroomError], problem: str
    ) -> None:
        """Which file is meant is the client's to say."""
        host.put("api/models/o/n/revision/main", listing)
        with pytest.raises(kind, match=problem) as caught:
            resolve(library, "o/n")
        assert caught.value.field == FIELD

    def test_no_such_repository(self, library: Library) -> None:
        with pytest.raises(LoraNotFound, match="has no such file"):
            resolve(library, "o/n")


class TestRefusals:
    def refused(self, library: Library, url: str, kind: type[DarkroomError], problem: str = "") -> None:
        with pytest.raises(kind, match=f"{FIELD}: .*{problem}") as caught:
            resolve(library, url)
        assert caught.value.field == FIELD
        assert type(caught.value) is kind
        assert not kept(library)

    @pytest.mark.parametrize(
        ("status", "kind", "problem"),
        [
            (401, LoraDenied, "DARKROOM_LORA_TOKENS"),
            (403, LoraDenied, "DARKROOM_LORA_TOKENS"),
            (404, LoraNotFound, "no such file"),
            (410, LoraNotFound, "no such file"),
            (400, LoraUnreachable, "answered 400"),
            (500, LoraUnreachable, "3 tries"),
            (416, LoraTruncated, "empty"),
        ],
    )
    def test_answers(
        self, library: Library, host: FileHost, status: int, kind: type[DarkroomError], problem: str
    ) -> None:
        """Each way in which a host may say no has its own code."""
        self.refused(library, host.put("a.safetensors", status=status), kind, problem)

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"<!doctype html><title>Sign in</title>", LoraNotSafetensors),
            (b'{"error": "no"}', LoraNotSafetensors),
            (b"PK\x03\x04" + bytes(100), LoraNotSafetensors),
            (b"\x80\x02}q\x00" + bytes(100), LoraNotSafetensors),
            (b"", LoraTruncated),
            (b"abc", LoraTruncated),
            (FIRST[:100], LoraTruncated),
            (FIRST[:-1], LoraTruncated),
            (FIRST + b"x", LoraHeaderInvalid),
            (b"\xff" * 64, LoraHeaderInvalid),
            (b"\x10" + bytes(7) + b"not json at all!", LoraHeaderInvalid),
        ],
        ids=["page", "json", "zip", "pickle", "empty", "bytes", "in-header", "cut", "rest", "length", "no-json"],
    )
    @pytest.mark.parametrize("ranges", [True, False])
    def test_what_is_no_lora(
        self, library: Library, host: FileHost, body: bytes, kind: type[DarkroomError], *, ranges: bool
    ) -> None:
        """What the first bytes give away is refused at the submit, whether the host serves parts of files or not."""
        self.refused(library, host.put("a", body, ranges=ranges), kind)

    def test_refused_after_kilobytes(self, library: Library, host: FileHost) -> None:
        """A large file that will not do is not read, though its host knows no ranges."""
        body = b"<html>" + bytes(3 * 10**7)
        library.remote._max_bytes = 10**9
        self.refused(library, host.put("a", body, ranges=False), LoraNotSafetensors)
        assert host.sent_bytes < 10**7

    def test_a_header_longer_than_the_first_look(self, library: Library, host: FileHost) -> None:
        """Is read to its end by a second one."""
        body = lora_file(modules=1000, rank=1, side=1)
        assert int.from_bytes(body[:8], "little") > 2**17
        (ref,) = resolve(library, host.put("a.safetensors", body))
        assert opened(library, ref) == body

    def test_too_large_before(self, library: Library, host: FileHost) -> None:
        """A file that says it is too large is not read."""
        self.refused(library, host.put("a", FIRST, length=10**6 + 1, ranges=False), LoraTooLarge, "1,000,000 bytes")
        self.refused(library, host.put("b", FIRST + bytes(10**6)), LoraTooLarge, "1,000,000 bytes")

    @pytest.mark.parametrize("etag", [None, '"1"'])
    def test_too_large_while_reading(self, library: Library, host: FileHost, etag: str | None) -> None:
        """One that doesn't say is cut off at the limit, whoever fetches it."""
        url = host.put("a", FIRST + bytes(3 * 10**7), length=-1, ranges=False, etag=etag)
        with pytest.raises(LoraTooLarge):
            opened(library, resolve(library, url)[0])
        assert host.sent_bytes < 2 * 10**7
        assert not kept(library)

    def test_breaks_off(self, library: Library, host: FileHost) -> None:
        """A download that ends before the length it promised is tried again, and then given up; what has come of it is
        left for the next job that wants it."""
        url = host.put("a.safetensors", LARGE, stop_after=9 * 2**14)
        (ref,) = resolve(library, url)
        with pytest.raises(LoraUnreachable, match=r"broke off \(3 tries\)"):
            opened(library, ref)
        assert not kept(library)
        assert came_of_it(library)
        host.put("a.safetensors", LARGE)
        host.asked.clear()
        assert opened(library, ref) == LARGE
        (question,) = host.asked
        assert question.headers["Range"] != "bytes=0-"
        assert not came_of_it(library)

    def test_goes_on_where_it_broke_off(self, library: Library, host: FileHost) -> None:
        """Of the version that was begun, and what has been written is not asked for again."""
        (ref,) = resolve(library, host.put("a.safetensors", LARGE, stop_after=7 * len(LARGE) // 8))
        host.asked.clear()
        assert opened(library, ref) == LARGE
        first, second = (question.headers for question in host.asked)
        assert "Range" not in first
        assert 0 < int(second["Range"].removeprefix("bytes=").removesuffix("-")) < len(LARGE)
        assert second["If-Range"] == host.files["a.safetensors"].etag

    @pytest.mark.parametrize("now", [{}, {"ranges": False}, {"etag": None}, {"shift": 1}])
    def test_begins_anew_where_it_can_not_go_on(self, library: Library, host: FileHost, now: dict[str, object]) -> None:
        """Where the host sends the whole, says nothing of its version, or sends another part: what comes is whole."""
        host.put_on_hub("owner/name", "a.safetensors", LARGE, commit=COMMIT)
        (ref,) = resolve(library, "owner/name/a.safetensors")
        assert mended(library, host, f"cdn/{digest_of(LARGE)}", ref, LARGE, **now) == LARGE

    def test_is_not_whole_when_it_goes_on(self, library: Library, host: FileHost) -> None:
        """A host that sends less of the rest than there is, and says so: what has come is not taken for the file."""
        (ref,) = resolve(library, host.put("a.safetensors", LARGE, stop_after=7 * len(LARGE) // 8, most=2**12))
        with pytest.raises(LoraUnreachable, match="sent another length than it said"):
            opened(library, ref)
        assert not kept(library)

    def test_is_another_when_it_goes_on(self, library: Library, host: FileHost) -> None:
        """Its first half is not joined with the second half of another."""
        (ref,) = resolve(library, host.put("a.safetensors", LARGE))
        other = lora_file(rank=32, side=1024, seed=5)
        with pytest.raises(LoraChanged):
            mended(library, host, "a.safetensors", ref, other)

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:1/a.safetensors", "http://169.254.169.254/a", "http://[::1]/a", "ftp://h.example/a"]
    )
    def test_addresses_that_are_not_asked(self, library: Library, url: str) -> None:
        """What is known to lead inside is refused without the network."""
        with pytest.raises(LoraForbidden, match=f"{FIELD}: the address") as caught:
            library.check(AskedLora(field=FIELD, named=url, is_preset=False))
        assert caught.value.field == FIELD
        self.refused(library, url, LoraForbidden)

    def test_a_name_that_leads_inside(self, settings: Settings, host: FileHost) -> None:
        """So is a name that turns out to, and a redirect that does."""
        library = open_loras(settings)
        self.refused(
            library, host.put("a", status=302, headers={"Location": "http://127.0.0.1:1/b"}), LoraRedirectForbidden
        )
        library.remote._transport = Transport(allow=(), resolver=Inside)
        self.refused(library, "http://files.example/a", LoraForbidden, "not public")

    @pytest.mark.parametrize("told", ["name", "redirect"])
    def test_pickles(self, library: Library, host: FileHost, told: str) -> None:
        """A file that only its host calls a pickle is one too."""
        if told == "name":
            url = host.put("get", FIRST, headers={"Content-Disposition": 'attachment; filename="model.ckpt"'})
        else:
            host.put("model.pt", FIRST)
            url = host.put("get", status=302, headers={"Location": "/model.pt"})
        self.refused(library, url, LoraNotSafetensors, "can run code")

    def test_no_room(self, library: Library, host: FileHost) -> None:
        """A store that is full of what stays takes no more, and says so."""
        pinned = resolve(library, host.put("a.safetensors", LARGE))[0]
        library.index.pin(asyncio.run(library.open(pinned)).digest)
        library.store._budget_bytes = len(LARGE) + 10
        other = lora_file(seed=3, rank=32, side=1024)
        (ref,) = resolve(library, host.put("b.safetensors", other))
        host.put("b.safetensors", other, gate=threading.Event())
        with pytest.raises(LoraNoRoom, match="no room"):
            opened(library, ref)
        assert kept(library) == {digest_of(LARGE)}


CHILD = """
import asyncio, json, sys
from darkroom.edit import LoraRef
from darkroom.lora import store
from darkroom.settings import Settings
from darkroom.stores import open_loras

store.NOTE_BYTES = 1
ref = LoraRef(**json.loads(sys.argv[2]))
library = open_loras(Settings.model_validate_json(sys.argv[1]))
asyncio.run(library.open(ref, lambda done, size: print(done, flush=True)))
"""


def killed_midway(settings: Settings, host: FileHost, path: str, ref: LoraRef) -> int:
    """Of a process that was fetching the file when the system killed it: how many bytes had come."""
    file = host.files[path]
    file.gate, file.gate_after = threading.Event(), len(file.body) // 2 // PIECE_BYTES * PIECE_BYTES
    file.stop_after = file.gate_after
    asked = (settings.model_dump_json(), json.dumps(dataclasses.asdict(ref)))
    with subprocess.Popen([sys.executable, "-c", CHILD, *asked], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert any(int(line) == file.gate_after for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    file.gate.set()
    host.files[path] = dataclasses.replace(file, gate=None, stop_after=None)
    host.asked.clear()
    return file.gate_after


class TestKilled:
    """The process that fetches a file is killed in the middle of it."""

    @pytest.mark.parametrize(
        "told", [{}, {"etag": None, "modified": "Sat, 01 Feb 2025 10:00:00 GMT"}], ids=["etag", "date"]
    )
    def test_the_next_goes_on(
        self, library: Library, settings: Settings, host: FileHost, told: dict[str, object]
    ) -> None:
        """Where it was, if the file is the same: one of the many jobs that want it asks for the rest, and no byte comes
        twice."""
        (ref,) = resolve(library, host.put("a.safetensors", LARGE, **told))
        host.sent_bytes = 0
        half = killed_midway(settings, host, "a.safetensors", ref)
        with ThreadPoolExecutor(3) as pool:
            assert [*pool.map(lambda _: opened(open_loras(settings), ref), range(3))] == [LARGE] * 3
        (question,) = host.asked
        assert question.headers["Range"] == f"bytes={half}-"
        assert question.headers["If-Range"] == ref.validator
        assert host.sent_bytes == len(LARGE)
        assert kept(library) == {digest_of(LARGE)}
        assert not came_of_it(library)

    @pytest.mark.parametrize("now", [{}, {"heeds": False}], ids=["whole", "rest"])
    def test_another_file_is_not_joined_to_it(
        self, library: Library, settings: Settings, host: FileHost, now: dict[str, object]
    ) -> None:
        """Whoever was held to the first one fails; later requests get the new one, all of it; also where the host sends
        the rest of another file than it was asked for."""
        other = lora_file(rank=32, side=1024, seed=5)
        (ref,) = resolve(library, host.put("a.safetensors", LARGE))
        killed_midway(settings, host, "a.safetensors", ref)
        url = host.put("a.safetensors", other, **now)
        with pytest.raises(LoraChanged):
            opened(library, ref)
        assert not came_of_it(library)
        assert opened(library, resolve(library, url)[0]) == other
        assert kept(library) == {digest_of(other)}

    def test_a_host_that_mixes_them_up(self, library: Library, settings: Settings, host: FileHost) -> None:
        """Has another file under the same ETag: where the digest is known the joined file is refused, and the next job
        begins anew."""
        host.put_on_hub("owner/name", "a.safetensors", LARGE, commit=COMMIT)
        place = f"cdn/{digest_of(LARGE)}"
        (ref,) = resolve(library, "owner/name/a.safetensors")
        killed_midway(settings, host, place, ref)
        host.put(place, lora_file(rank=32, side=1024, seed=5), etag=host.files[place].etag)
        with pytest.raises(LoraChanged):
            opened(library, ref)
        assert not came_of_it(library)
        host.put(place, LARGE)
        assert opened(library, ref) == LARGE

    def test_just_before_it_was_kept(self, library: Library, host: FileHost, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of the file is here and nothing is left to ask for: it is fetched once more."""
        (ref,) = resolve(library, host.put("a.safetensors", LARGE))
        with monkeypatch.context() as patch:
            patch.setattr(library.store, "keep", lambda _: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                opened(library, ref)
        assert came_of_it(library)
        assert opened(library, ref) == LARGE
        assert not came_of_it(library)


class TestTokens:
    def with_token(self, settings: Settings, *tokens: str) -> Library:
        return open_loras(settings.model_copy(update={"lora_tokens": tokens}))

    def test_a_token_opens_its_host(self, settings: Settings, host: FileHost) -> None:
        """The token of a host is sent to it, for the header as for the file."""
        url = host.put("a.safetensors", FIRST, token="secret")
        with pytest.raises(LoraDenied):
            resolve(open_loras(settings), url)
        library = self.with_token(settings, "127.0.0.1=secret")
        assert opened(library, resolve(library, url)[0]) == FIRST

    def test_a_token_is_its_hosts_alone(self, settings: Settings, host: FileHost) -> None:
        """No other host is sent it, nor another server that the first one redirects to."""
        with file_host() as other:
            other.put("b.safetensors", FIRST)
            url = host.put("a", status=302, headers={"Location": f"{other.base}/b.safetensors"}, token="secret")
            settings = settings.model_copy(update={"fetch_allow": (host.address, other.address)})
            library = self.with_token(settings, "127.0.0.1=secret", "files.example=other")
            assert opened(library, resolve(library, url)[0]) == FIRST
            assert all("Authorization" in question.headers for question in host.asked)
            assert other.asked
            assert not any("Authorization" in question.headers for question in other.asked)

    def test_never_in_the_clear(self, settings: Settings, host: FileHost) -> None:
        """Over plain http a token goes only to a host that the operator has let through by name."""
        url = host.put("a.safetensors", FIRST, token="secret")
        settings = settings.model_copy(update={"fetch_allow": ("127.0.0.0/8",)})
        with pytest.raises(LoraDenied):
            resolve(self.with_token(settings, "127.0.0.1=secret"), url)
        assert not any("Authorization" in question.headers for question in host.asked)


class TestTogether:
    def test_many_wait_for_one_download(self, library: Library, host: FileHost) -> None:
        """Of many jobs that want a file, in several threads and libraries, one fetches it."""
        gate = threading.Event()
        url = host.put("a.safetensors", LARGE)
        (ref,) = resolve(library, url)
        host.put("a.safetensors", LARGE, gate=gate)
        found: list[bytes] = []
        libraries = [library] * 3 + [
            Library(
                store=library.store,
                index=library.index,
                remote=library.remote,
                base=library._base,
                presets=library.presets,
                fetch_allow=library._fetch_allow,
            )
        ]
        threads = [threading.Thread(target=lambda one=one: found.append(opened(one, ref))) for one in libraries]
        for thread in threads:
            thread.start()
        assert host.files["a.safetensors"].knocked.wait(20)
        gate.set()
        for thread in threads:
            thread.join()
        assert found == [LARGE] * 4
        assert bodies(host, "a.safetensors") == 1

    def test_progress(self, library: Library, host: FileHost) -> None:
        """Whoever waits is told how many bytes are here, and of how many."""
        seen: list[tuple[int, int | None]] = []
        (ref,) = resolve(library, host.put("a.safetensors", LARGE))
        asyncio.run(library.open(ref, lambda done, size: seen.append((done, size))))
        assert seen[-1] == (len(LARGE), len(LARGE))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def test_the_longest_unused_makes_room(self, library: Library, host: FileHost) -> None:
        """A new file takes the place of old ones, and their addresses are forgotten with them."""
        first = host.put("a.safetensors", LARGE)
        opened(library, resolve(library, first)[0])
        library.store._budget_bytes = len(LARGE) + 10
        library.store._clock = lambda clock=library.store._clock: clock() + FRESH_S + 1
        opened(library, resolve(library, host.put("b.safetensors", SECOND))[0])
        assert kept(library) == {digest_of(SECOND)}
        assert library.index.seen(first) is None


class TestPresets:
    def test_not_installed(self, library: Library) -> None:
        """Whoever asks for a preset that is not here is told which command brings it."""
        asked = AskedLora(field="lora", named="relight", is_preset=True)
        for refuse in (lambda: library.check(asked), lambda: asyncio.run(library.resolve([asked]))):
            with pytest.raises(AdapterUnavailable, match="darkroom loras fetch relight") as caught:
                refuse()
            assert caught.value.field == "lora"

    def test_installed(self, library: Library, host: FileHost) -> None:
        """A preset is the file installed under its name, with its own strength unless the request or the operator has
        another; no network is asked."""
        digest = asyncio.run(library.open(resolve(library, host.put("a", FIRST))[0])).digest
        host.asked.clear()
        asked = AskedLora(field="lora", named="next_scene", is_preset=True)
        library.index.install(Installed(name="next_scene", digest=digest, source="x"))
        (ref,) = asyncio.run(library.resolve([asked]))
        assert ref == LoraRef(field="lora", name="next_scene", strength=0.75, digest=digest)
        (ref,) = asyncio.run(library.resolve([dataclasses.replace(asked, strength=0.1)]))
        assert ref.strength == 0.1
        library.index.install(Installed(name="next_scene", digest=digest, source="x", scale=0.5))
        (ref,) = asyncio.run(library.resolve([asked]))
        assert ref.strength == 0.5
        assert opened(library, ref) == FIRST
        assert not host.asked

    def test_removed_while_the_job_waits(self, library: Library) -> None:
        """A job whose preset has been taken away meanwhile fails, naming it."""
        ref = LoraRef(field="lora", name="relight", strength=1.0, digest="a" * 64)
        with pytest.raises(LoraChanged, match="lora: the LoRA relight is no longer on this server"):
            opened(library, ref)
