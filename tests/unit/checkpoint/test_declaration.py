"""darkroom.json: what a checkpoint says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from darkroom.checkpoint import declaration as module
from darkroom.checkpoint.declaration import Declaration, WorkingSizes, declared, read_declaration
from darkroom.checkpoint.json_file import read_json
from darkroom.errors import BadCheckpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one LoRA in it, and one file beside it."""
    (tmp_path / "checkpoint" / "loras").mkdir(parents=True)
    (tmp_path / "checkpoint" / "loras" / "relight.safetensors").touch()
    (tmp_path / "outside.safetensors").touch()
    return tmp_path / "checkpoint"


def declare(folder: Path, entries: object) -> None:
    (folder / "darkroom.json").write_text(json.dumps(entries))


def test_silence_is_the_published_default(folder: Path) -> None:
    """A checkpoint without darkroom.json works at 1024², 1024² and 384², has no guidance and no LoRAs of its own, and
    so does one that names nothing."""
    published = WorkingSizes(
        output_area_px=1024**2, vae_area_px=1024**2, condition_area_px=384**2, side_multiple_px=32, side_max_px=None
    )
    assert read_declaration(folder) == Declaration(working_sizes=published, guidance_scale=None, loras={})
    declare(folder, {})
    assert read_declaration(folder) == Declaration(working_sizes=published)


def test_all_that_may_be_declared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, guidance, and LoRAs as absolute paths, whatever the folder was named by."""
    file = "loras/relight.safetensors"
    sizes = {"output_area_px": 128**2, "side_max_px": 144}
    declare(folder, {**sizes, "guidance_scale": 1, "loras": {"relight": file, "dusk": file}})
    monkeypatch.chdir(folder.parent)
    found = read_declaration(Path(folder.name))
    assert found.working_sizes == WorkingSizes(output_area_px=128**2, side_max_px=144)
    assert found.guidance_scale == 1.0
    assert found.loras == {"relight": folder / file, "dusk": folder / file}


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"output_area": 65536}, "output_area"),
        ({"vae_area_px": "65536"}, "vae_area_px"),
        ({"vae_area_px": 1023}, "vae_area_px"),
        ({"condition_area_px": True}, "condition_area_px"),
        ({"condition_area_px": 65536.0}, "condition_area_px"),
        ({"side_multiple_px": 24}, "side_multiple_px = 24 must be a multiple of 16"),
        ({"side_max_px": None}, "side_max_px"),
        ({"side_multiple_px": 0}, "side_multiple_px"),
        ({"side_multiple_px": 16.0}, "side_multiple_px"),
        ({"guidance_scale": "1"}, "guidance_scale"),
        ({"guidance_scale": True}, "guidance_scale"),
        ({"guidance_scale": 0.5}, "guidance_scale = 0.5 must be a number from 1 to 20"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"loras": ["loras/relight.safetensors"]}, "loras must be an object"),
        ({"loras": {"Re-light": "loras/relight.safetensors"}}, "Re-light"),
        ({"loras": {"relight": "loras/relight.pt"}}, "ends in .safetensors"),
        ({"loras": {"relight": None}}, "relight"),
        ({"loras": {"relight": "/etc/passwd.safetensors"}}, "'relight'.*leaves the checkpoint"),
        ({"loras": {"relight": "../outside.safetensors"}}, "'relight'.*leaves the checkpoint"),
        ({"loras": {"relight": "loras/../../outside.safetensors"}}, "'relight'.*leaves the checkpoint"),
        ({"loras": {"relight": "..\\outside.safetensors"}}, "'relight'.*leaves the checkpoint"),
        ({"loras": {"relight": "loras/dusk.safetensors"}}, r"dusk\.safetensors is missing"),
    ],
)
def test_it_is_read_strictly(folder: Path, entries: object, named: str) -> None:
    """An unknown key, a bad value, a file outside the checkpoint or not there is an error that names it."""
    declare(folder, entries)
    with pytest.raises(BadCheckpoint, match=named):
        read_declaration(folder)
    assert declared(str(folder)) == Declaration()


def test_one_that_is_not_here_declares_nothing(folder: Path) -> None:
    """Nor does one that is not named, a published one, or one on its way; when it has come, it does."""
    for name in (None, "Qwen/Qwen-Image-Edit-2509", "owner/never-fetched", str(folder / "none")):
        assert declared(name) == Declaration()
    declare(folder, {"guidance_scale": 2.5})
    assert declared(str(folder)).guidance_scale == 2.5


def test_it_is_read_when_it_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at each of the questions that a submit asks."""
    reads: list[Path] = []

    def read(path: Path) -> dict[str, Any]:
        reads.append(path)
        return read_json(path)

    monkeypatch.setattr(module, "read_json", read)
    declare(folder, {"guidance_scale": 2.5})
    assert [declared(str(folder)).guidance_scale for _ in range(5)] == [2.5] * 5
    declare(folder, {"guidance_scale": 11.5})
    assert [declared(str(folder)).guidance_scale for _ in range(5)] == [11.5] * 5
    assert len(reads) == 2


def test_files_that_come_and_go(folder: Path) -> None:
    """A checkpoint whose LoRAs are still on their way, or gone again, declares nothing for so long."""
    file = folder / "loras" / "dusk.safetensors"
    declare(folder, {"loras": {"dusk": "loras/dusk.safetensors"}})
    for _ in range(2):
        assert declared(str(folder)) == Declaration()
        file.touch()
        assert declared(str(folder)).loras == {"dusk": file}
        file.unlink()
