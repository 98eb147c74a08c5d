"""Which checkpoint is taken where none is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.checkpoint.download import Download, PartDownload
from darkroom.checkpoint.locate import NANO
from darkroom.checkpoint.published import PUBLISHED
from darkroom.cli import default
from darkroom.cli.default import REAL, no_room, not_here, with_checkpoint
from darkroom.settings import Settings

CPU = {"torch": "2", "name": "cpu", "dtype": "bfloat16", "gpus": []}


def gpus(*memory_gb: int, fp8: bool = True) -> dict[str, object]:
    found = [{"name": "GPU", "memory_bytes": gb * 10**9, "multiplies_fp8": fp8} for gb in memory_gb]
    return {**CPU, "name": "GPU", "gpus": found}


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The real checkpoint's folder in a cache that has all of it."""
    parts = tuple(
        PartDownload(name=name, here=(), missing=(), missing_bytes=0, parameters=0) for name in PUBLISHED[REAL]
    )
    whole = Download(parts=parts, small_files=())
    monkeypatch.setattr(default, "find_cached", lambda name: tmp_path if name == REAL else None)
    monkeypatch.setattr(default, "plan_download", lambda folder, published: whole)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "found", "why"),
    [
        ({}, gpus(141), None),
        ({}, gpus(80), None),
        ({}, gpus(24), "does not fit.*24.0 GB"),
        ({"device_memory_gb": 16}, gpus(141), "does not fit"),
        ({"device": "cpu"}, gpus(141), "wants a GPU"),
        ({"device": "cuda:1"}, gpus(24, 141), None),
        ({"device": "cuda:2"}, gpus(141, 141), "wants a GPU"),
        ({"dtype": "float32"}, gpus(48), "does not fit"),
        ({}, CPU, "wants a GPU"),
        ({}, {}, "wants a GPU"),
    ],
)
def test_room(monkeypatch: pytest.MonkeyPatch, settings: dict, found: dict, why: str | None) -> None:
    """The plan of the device that the settings name decides; a CPU never will do, whatever its memory."""
    monkeypatch.setattr("darkroom.memory.host.host_memory_bytes", lambda: 10**12)
    said = no_room(Settings(**settings), found)
    assert (said is None) == (why is None)
    if why is not None:
        assert re.search(why, said)


def test_what_is_not_all_here(tmp_path: Path) -> None:
    """Nothing of it, configs alone, and a broken file are no checkpoint yet."""
    assert "not in the Hugging Face cache" in not_here(None)
    assert "57.7 GB of it are still to be downloaded" in not_here(tmp_path)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{")
    assert "config.json" in not_here(tmp_path)


def test_the_real_one_where_it_will_do(cached: Path) -> None:
    """It is whole and fits: that is said in a line."""
    told: list[str] = []
    assert with_checkpoint(Settings(), lambda: gpus(141), tell=told.append).checkpoint == REAL
    (line,) = told
    assert REAL in line


def test_nano_where_it_will_not(cached: Path) -> None:
    """That is said, with the reason and the remedy; all other settings stay, and travel as if they had been named."""
    told: list[str] = []
    chosen = with_checkpoint(Settings(port=0), lambda: CPU, tell=told.append)
    assert chosen == Settings(port=0, checkpoint=str(NANO))
    assert "checkpoint" in chosen.model_fields_set
    text = "\n".join(told)
    for said in ("nano", "wants a GPU", f"hf download {REAL}", "DARKROOM_CHECKPOINT"):
        assert said in text


def test_torch_is_asked_only_if_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the real checkpoint, or with one named, nobody waits for torch."""

    def never() -> dict:
        raise AssertionError("torch was asked")

    monkeypatch.setattr(default, "find_cached", lambda name: None)
    assert with_checkpoint(Settings(), never, tell=lambda _: None).checkpoint == str(NANO)
    named = Settings(checkpoint="/my/own")
    told: list[str] = []
    assert with_checkpoint(named, never, tell=told.append) is named
    assert told == []


def test_deciding_needs_no_torch() -> None:
    """The service decides by itself and never imports it."""
    code = (
        "import sys\nfrom darkroom.cli.default import with_checkpoint\nfrom darkroom.settings import Settings\n"
        "with_checkpoint(Settings())\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
