"""LoRAs that a checkpoint brings along."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from darkroom.edit import LoraRef
from darkroom.errors import AdapterUnavailable, BadSetting, LoraChanged
from darkroom.lora.index import Installed
from darkroom.lora.library import AskedLora, Library
from darkroom.lora.shelf import Listed, Shelf
from darkroom.settings import Settings
from darkroom.stores import open_loras
from hosts import digest_of, lora_file

OWN, OTHER, TABLES = (lora_file(seed=seed) for seed in (1, 2, 3))
NEXT_SCENE = AskedLora(field="lora", named="next_scene", is_preset=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder whose darkroom.json names a preset's LoRA, and one that no table knows."""
    folder = tmp_path / "checkpoint"
    (folder / "loras").mkdir(parents=True)
    for name, data in (("next_scene", OWN), ("film", OTHER)):
        (folder / "loras" / f"{name}.safetensors").write_bytes(data)
    declare(folder, "next_scene", "film")
    return folder


def declare(folder: Path, *names: str) -> None:
    loras = {name: f"loras/{name}.safetensors" for name in names}
    (folder / "darkroom.json").write_text(json.dumps({"loras": loras}))


@pytest.fixture
def settings(settings: Settings, checkpoint: Path) -> Settings:
    return settings.model_copy(update={"checkpoint": str(checkpoint)})


def resolve(library: Library, asked: AskedLora = NEXT_SCENE) -> LoraRef:
    library.check(asked)
    (ref,) = asyncio.run(library.resolve([asked]))
    return ref


def opened(library: Library, ref: LoraRef) -> bytes:
    return asyncio.run(library.open(ref)).path.read_bytes()


def find(library: Library, name: str) -> Listed:
    (found,) = (one for one in Shelf(library).listed() if one.name == name)
    return found


def nobody(done: int, size: int | None) -> None: ...


def test_it_is_installed_as_it_is(library: Library, checkpoint: Path) -> None:
    """Nobody fetches anything: the name is held to the checkpoint's file, at full strength where the table's file has
    another, with the table's trigger; and a worker with a store of its own gets it, also after eviction."""
    ref = resolve(library)
    assert (ref.digest, ref.strength, ref.url) == (digest_of(OWN), 1.0, None)
    assert opened(library, ref) == OWN
    library.store.remove(digest_of(OWN))
    assert opened(library, ref) == OWN
    source = str(checkpoint / "loras" / "next_scene.safetensors")
    listed = find(library, "next_scene")
    assert (listed.source, listed.trigger, listed.scale) == (source, "Next Scene:", 1.0)
    assert (listed.digest, listed.installed, listed.size_bytes) == (digest_of(OWN), True, len(OWN))
    film = find(library, "film")
    assert (film.digest, film.trigger, film.scale, film.installed) == (digest_of(OTHER), "", 1.0, True)
    assert not find(library, "relight").installed


def test_another_checkpoint_has_none_of_it(library: Library, settings: Settings) -> None:
    """With the same data, for nothing was installed; a job that was held to the file fails unless it has it."""
    ref = resolve(library)
    elsewhere = open_loras(settings.model_copy(update={"checkpoint": None}))
    with pytest.raises(AdapterUnavailable):
        resolve(elsewhere)
    assert not find(elsewhere, "next_scene").installed
    assert "film" not in elsewhere.presets
    with pytest.raises(LoraChanged, match="next_scene is no longer on this server"):
        opened(elsewhere, ref)


def test_the_file_changes_while_the_job_waits(library: Library, checkpoint: Path) -> None:
    """Whoever was held to the old one never gets the new one; later requests do."""
    ref = resolve(library)
    (checkpoint / "loras" / "next_scene.safetensors").write_bytes(OTHER)
    with pytest.raises(LoraChanged):
        opened(library, ref)
    assert resolve(library).digest == digest_of(OTHER)


def test_a_checkpoint_that_comes_later(library: Library, checkpoint: Path) -> None:
    """What it brings is known once it is here."""
    away = shutil.move(checkpoint, checkpoint.with_name("away"))
    with pytest.raises(AdapterUnavailable):
        resolve(library)
    shutil.move(away, checkpoint)
    assert resolve(library).digest == digest_of(OWN)


def test_the_operators_comes_first_and_the_tables_last(library: Library, tmp_path: Path) -> None:
    """What `loras add` has named is taken, until it is removed; what was fetched from the table's source is not."""
    file = tmp_path / "mine.safetensors"
    file.write_bytes(OTHER)
    shelf = Shelf(library)
    asyncio.run(shelf.add("next_scene", str(file), nobody, scale=0.5, trigger=None))
    assert (resolve(library).digest, resolve(library).strength) == (digest_of(OTHER), 0.5)
    assert shelf.remove("next_scene") == digest_of(OTHER)
    assert resolve(library).digest == digest_of(OWN)
    tables = library._presets["next_scene"].source
    library.index.install(Installed(name="next_scene", digest=digest_of(TABLES), source=tables))
    assert resolve(library).digest == digest_of(OWN)


@pytest.mark.parametrize(
    ("text", "digest", "scale"),
    [
        ('source = "/srv/loras/mine.safetensors"', None, 0.75),
        (f'digest = "{"ab" * 32}"', None, 0.75),
        ("scale = 0.25", digest_of(OWN), 0.25),
        ('trigger = "Then:"', digest_of(OWN), 1.0),
    ],
)
def test_the_operators_table_comes_first(
    settings: Settings, tmp_path: Path, text: str, digest: str | None, scale: float
) -> None:
    """A file that it names, or pins, is the one, even where it is still to be fetched; a scale or a trigger alone goes
    with the checkpoint's file."""
    table = tmp_path / "presets.toml"
    table.write_text(f"[next_scene]\n{text}\n")
    listed = find(open_loras(settings.model_copy(update={"lora_presets": table})), "next_scene")
    assert (listed.digest, listed.scale) == (digest, scale)


def test_what_an_operator_can_do_with_it(library: Library, checkpoint: Path, tmp_path: Path) -> None:
    """Look into it and bring it into the store beforehand, which also takes back what was added; not remove it."""
    shelf = Shelf(library)
    source = checkpoint / "loras" / "next_scene.safetensors"
    assert asyncio.run(shelf.header("next_scene"))[1] == source
    with pytest.raises(BadSetting, match=r"next_scene is the checkpoint's own.*loras add"):
        shelf.remove("next_scene")
    file = tmp_path / "mine.safetensors"
    file.write_bytes(OTHER)
    asyncio.run(shelf.add("next_scene", str(file), nobody, scale=None, trigger=None))
    assert asyncio.run(shelf.fetch("next_scene", nobody)) == digest_of(OWN)
    assert find(library, "next_scene").digest == digest_of(OWN)
    assert asyncio.run(shelf.header("next_scene"))[1] == library.store.path(digest_of(OWN))


def test_its_digest_is_worked_out_once(library: Library, settings: Settings, checkpoint: Path) -> None:
    """Large files are not read at each start: only size and time are looked at."""
    digest = resolve(library).digest
    file = checkpoint / "loras" / "next_scene.safetensors"
    stat = file.stat()
    file.write_bytes(bytes(len(OWN)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert resolve(open_loras(settings)).digest == digest
