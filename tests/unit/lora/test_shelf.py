"""What `darkroom loras` does, but for its words."""

import asyncio
from pathlib import Path

import pytest

from darkroom.errors import BadSetting, InvalidField, LoraHeaderInvalid, LoraNotFound, LoraNotSafetensors
from darkroom.lora.library import Library
from darkroom.lora.presets import Preset
from darkroom.lora.shelf import Listed, Shelf
from hosts import FileHost, digest_of, lora_file

FIRST, SECOND = lora_file(seed=1), lora_file(seed=2)


def nobody(done: int, size: int | None) -> None: ...


@pytest.fixture
def shelf(library: Library) -> Shelf:
    return Shelf(library)


def on_hub(shelf: Shelf, host: FileHost, name: str, data: bytes) -> None:
    """Put a preset's file where its source says."""
    repository, _, file = shelf._library.presets[name].source.rpartition("/")
    host.put_on_hub(repository, file, data, commit=digest_of(data)[:40])


def add(shelf: Shelf, name: str, source: object, scale: float | None = None, trigger: str | None = None) -> str:
    return asyncio.run(shelf.add(name, str(source), nobody, scale=scale, trigger=trigger))


def fetch(shelf: Shelf, wanted: str) -> str:
    return asyncio.run(shelf.fetch(wanted, nobody))


def find(shelf: Shelf, name: str | None) -> Listed:
    (found,) = (one for one in shelf.listed() if one.name == name)
    return found


def a_file(folder: Path, data: bytes = FIRST, name: str = "a.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_what_is_listed_at_first(shelf: Shelf) -> None:
    """All presets, none of them installed."""
    listed = list(shelf.listed())
    assert [one.name for one in listed] == [*shelf._library.presets]
    assert not any(one.installed or one.digest or one.pinned or one.size_bytes for one in listed)
    assert find(shelf, "next_scene").scale == 0.75


def test_a_preset_is_fetched(shelf: Shelf, host: FileHost) -> None:
    """From its source, and listed as installed; fetched again it is what its source has by then."""
    on_hub(shelf, host, "eraser", FIRST)
    assert fetch(shelf, "eraser") == digest_of(FIRST)
    one = find(shelf, "eraser")
    assert (one.digest, one.installed, one.pinned, one.size_bytes) == (digest_of(FIRST), True, True, len(FIRST))
    on_hub(shelf, host, "eraser", SECOND)
    assert fetch(shelf, "eraser") == digest_of(SECOND)
    assert find(shelf, "eraser").digest == digest_of(SECOND)


def test_a_preset_that_is_held_to_a_digest(shelf: Shelf, host: FileHost) -> None:
    """Gets no other file."""
    on_hub(shelf, host, "eraser", FIRST)
    preset = shelf._library.presets["eraser"]
    held = Preset(name="eraser", source=preset.source, trigger="", scale=1.0, digest=digest_of(SECOND))
    shelf._library._presets = {"eraser": held}
    with pytest.raises(BadSetting, match=f"the table wants {digest_of(SECOND)}"):
        fetch(shelf, "eraser")
    assert not find(shelf, "eraser").installed


def test_a_preset_with_a_file_for_a_source(shelf: Shelf, tmp_path: Path) -> None:
    """An operator's table may name a file of this machine's."""
    source = str(a_file(tmp_path))
    shelf._library._presets = {"film": Preset(name="film", source=source, trigger="", scale=1.0, digest=None)}
    assert fetch(shelf, "film") == digest_of(FIRST)


def test_an_address_is_fetched_for_later(shelf: Shelf, host: FileHost) -> None:
    """It goes by no name and isn't pinned."""
    url = host.put("a.safetensors", FIRST)
    assert fetch(shelf, url) == digest_of(FIRST)
    one = find(shelf, None)
    assert (one.digest, one.source, one.pinned) == (digest_of(FIRST), url, False)


def test_a_file_is_added(shelf: Shelf, tmp_path: Path) -> None:
    """Under a new name, with words and strength of its own; the file itself is not needed any more."""
    path = a_file(tmp_path)
    assert add(shelf, "film", path, scale=0.8, trigger="film grain") == digest_of(FIRST)
    path.unlink()
    one = find(shelf, "film")
    assert (one.trigger, one.scale, one.installed, one.pinned) == ("film grain", 0.8, True, True)
    assert shelf._library.store.path(digest_of(FIRST)).read_bytes() == FIRST


def test_a_preset_is_given_its_file(shelf: Shelf, tmp_path: Path, host: FileHost) -> None:
    """A preset's name with a file, or with what an address has, keeps the preset's trigger and scale."""
    add(shelf, "next_scene", a_file(tmp_path))
    one = find(shelf, "next_scene")
    assert (one.digest, one.scale, one.trigger) == (digest_of(FIRST), 0.75, "Next Scene:")
    add(shelf, "next_scene", host.put("b.safetensors", SECOND), scale=0.5)
    one = find(shelf, "next_scene")
    assert (one.digest, one.scale, one.trigger) == (digest_of(SECOND), 0.5, "Next Scene:")


@pytest.mark.parametrize(
    ("name", "source", "scale", "kind", "problem"),
    [
        ("Film", "a.safetensors", None, BadSetting, "lower-case"),
        ("../film", "a.safetensors", None, BadSetting, "lower-case"),
        ("film", "a.safetensors", 5.0, BadSetting, "-4 to 4"),
        ("film", "a.safetensors", float("nan"), BadSetting, "-4 to 4"),
        ("film", "./none.safetensors", None, BadSetting, "no such file"),
        ("film", "nonsense", None, InvalidField, "not a link"),
        ("film", "pickle.ckpt", None, LoraNotSafetensors, "can run code"),
        ("film", "page.safetensors", None, LoraNotSafetensors, "a web page"),
        ("film", "broken.safetensors", None, LoraHeaderInvalid, "broken.safetensors: "),
        ("film", "o/n/a.safetensors", None, LoraNotFound, "no such file"),
    ],
)
def test_what_is_not_added(
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    source: str,
    scale: float | None,
    kind: type[Exception],
    problem: str,
) -> None:
    """What can't be used is refused, and no name is given."""
    monkeypatch.chdir(tmp_path)
    for file, data in {"a.safetensors": FIRST, "pickle.ckpt": FIRST, "page.safetensors": b"<html>"}.items():
        a_file(tmp_path, data, file)
    a_file(tmp_path, FIRST + b"x", "broken.safetensors")
    with pytest.raises(kind, match=problem):
        add(shelf, name, source, scale=scale)
    assert not shelf._library.index.all_installed()
    assert not shelf._library.store.kept()


def test_a_full_store(shelf: Shelf, tmp_path: Path) -> None:
    """A file that finds no room says which setting would give it some."""
    shelf._library.store._budget_bytes = 10
    with pytest.raises(BadSetting, match="DARKROOM_LORAS_GB"):
        add(shelf, "film", a_file(tmp_path))


def test_pins(shelf: Shelf, host: FileHost) -> None:
    """A file is pinned by its digest's beginning, and let go again."""
    digest = fetch(shelf, host.put("a.safetensors", FIRST))
    assert shelf.pin(digest[:8]) == digest
    assert find(shelf, None).pinned
    assert shelf.unpin(digest) == digest
    assert not find(shelf, None).pinned


@pytest.mark.parametrize("wanted", ["none", "", "0123456", "zzzzzzzzzz", "../../x"])
def test_what_is_not_here(shelf: Shelf, tmp_path: Path, wanted: str) -> None:
    """Neither pinned nor removed; too short a beginning of a digest stands for none."""
    add(shelf, "film", a_file(tmp_path))
    for act in (shelf.pin, shelf.unpin, shelf.remove):
        with pytest.raises(BadSetting, match="darkroom loras list"):
            act(wanted)


def test_removing(shelf: Shelf, tmp_path: Path) -> None:
    """The last name takes its file along; a digest alone removes only what has no name."""
    for name in ("film", "grain"):
        add(shelf, name, a_file(tmp_path))
    digest = digest_of(FIRST)
    with pytest.raises(BadSetting, match="film, grain"):
        shelf.remove(digest)
    shelf.remove("film")
    assert find(shelf, "grain").installed
    shelf.remove("grain")
    assert not shelf._library.store.kept()
    assert "grain" not in [one.name for one in shelf.listed()]


def test_removing_what_a_request_has_brought(shelf: Shelf, host: FileHost) -> None:
    """By its digest, with its pin and what was known of its address."""
    url = host.put("a.safetensors", FIRST)
    digest = fetch(shelf, url)
    shelf.pin(digest)
    assert shelf.remove(digest[:12]) == digest
    assert not shelf._library.store.kept()
    assert not shelf._library.index.pinned()
    assert shelf._library.index.seen(url) is None


def test_looking_into_one(shelf: Shelf, tmp_path: Path, host: FileHost) -> None:
    """A file, a name and an address give the same header; of the address only kilobytes are read, and nothing kept."""
    large = lora_file(rank=32, side=1024)
    header, path = asyncio.run(shelf.header(str(a_file(tmp_path, large))))
    assert path == tmp_path / "a.safetensors"
    url = host.put("a.safetensors", large)
    assert asyncio.run(shelf.header(url)) == (header, None)
    assert host.sent_bytes <= 2**18
    on_hub(shelf, host, "eraser", large)
    assert asyncio.run(shelf.header("eraser")) == (header, None)
    assert not shelf._library.store.kept()
    add(shelf, "eraser", tmp_path / "a.safetensors")
    assert asyncio.run(shelf.header("eraser")) == (header, shelf._library.store.path(digest_of(large)))
    with pytest.raises(BadSetting, match="how large"):
        asyncio.run(shelf.header(host.put("b.safetensors", large, ranges=False, length=-1)))
