import os
import stat
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import BadSetting, LinkExpired, LinkInvalid
from darkroom.links import SECRET_BYTES, Links, read_secret

LINKS = Links(b"s" * SECRET_BYTES)


def asked(link: str) -> dict[str, str]:
    query = parse_qs(urlsplit(link).query)
    return {"expires": query["expires"][0], "signature": query["signature"][0]}


def test_a_link_is_good_until_it_expires() -> None:
    """The link to a file passes the check up to its time, and is told expired from then on."""
    link = asked(LINKS.path("files", "job", "a.png", expires_at=1000.0))
    LINKS.check("files", "job", "a.png", **link, now=999.9)
    with pytest.raises(LinkExpired):
        LINKS.check("files", "job", "a.png", **link, now=1000.0)


def test_a_link_is_the_same_whenever_it_is_made() -> None:
    """The same job and file have one link, so that a result is answered alike whenever it is asked for."""
    assert LINKS.path("files", "job", "a.png", expires_at=7.2) == Links(b"s" * 32).path(
        "files", "job", "a.png", expires_at=7.2
    )


@given(job=st.text(), file=st.text(), expires=st.text(), signature=st.text())
def test_nothing_else_passes(job: str, file: str, expires: str, signature: str) -> None:
    """No made-up text passes for a link, and none breaks the check."""
    with pytest.raises(LinkInvalid):
        LINKS.check("files", job, file, expires=expires, signature=signature, now=0)


@pytest.mark.parametrize(
    ("job", "file", "change"),
    [("job2", "a.png", {}), ("job", "b.png", {}), ("job", "a.png", {"expires": "2000"}), ("job\na.png", "1000", {})],
)
def test_a_link_is_for_one_file_and_time(job: str, file: str, change: dict[str, str]) -> None:
    """A signature fits no other job, file or expiry."""
    link = asked(LINKS.path("files", "job", "a.png", expires_at=1000)) | change
    with pytest.raises(LinkInvalid):
        LINKS.check("files", job, file, **link, now=0)


def test_another_secret_signs_otherwise() -> None:
    """A link of another server is not ours."""
    link = asked(Links(b"t" * 32).path("files", "job", "a.png", expires_at=1000))
    with pytest.raises(LinkInvalid):
        LINKS.check("files", "job", "a.png", **link, now=0)


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8000", "https://pictures.example", "https://example.com/some/prefix"]
)
def test_a_link_is_found_whatever_the_host(host: str) -> None:
    """The signature says that it is ours; a proxy's name and prefix before it don't matter."""
    link = LINKS.path("uploads", "a key", "a.png", expires_at=1000)
    assert LINKS.find(host + link) == ("uploads", "a key", "a.png", 1000)


@pytest.mark.parametrize(
    "change",
    [
        ("uploads", "files"),
        ("/k/", "/l/"),
        ("1000", "2000"),
        ("signature=", "signature=0"),
        ("?", "?expires=1000&"),
        ("?", "#"),
        ("http://h", "http://["),
    ],
)
def test_any_other_address_is_not_ours(change: tuple[str, str]) -> None:
    """An address that only looks like a link is anybody's."""
    assert LINKS.find("http://h" + LINKS.path("uploads", "k", "a.png", expires_at=1000)) is not None
    assert LINKS.find(("http://h" + LINKS.path("uploads", "k", "a.png", expires_at=1000)).replace(*change)) is None


@given(url=st.text())
def test_no_address_breaks_the_search(url: str) -> None:
    """Whatever is sent as an address is told from a link."""
    assert LINKS.find(url) is None
    assert LINKS.find(f"http://h/a/b/c?expires=1&signature={url}") is None


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    """The file is its owner's alone, holds the secret from then on, and leaves no draft behind."""
    path = tmp_path / "data" / "secret"
    secret = read_secret(path)
    assert len(secret) == SECRET_BYTES
    assert read_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which file a descriptor is")
def test_the_secret_is_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, and then the folder that has its name."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    read_secret(tmp_path / "secret")
    assert [path.name.split(".")[0] for path in synced] == ["secret", tmp_path.name]


def test_processes_that_start_together_share_the_secret(tmp_path: Path) -> None:
    """Whoever comes second takes the first one's."""
    starting, found = threading.Barrier(8), []

    def start() -> None:
        starting.wait()
        found.append(read_secret(tmp_path / "secret"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_broken_secret_stops_the_start(tmp_path: Path) -> None:
    """A file of another length is not taken for the secret."""
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    with pytest.raises(BadSetting, match="32 bytes"):
        read_secret(path)
