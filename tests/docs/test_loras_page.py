"""docs/loras.md: its table is the presets', its TOML is read, its commands run and do what it says."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.cli.app import main
from darkroom.lora.address import HubFile, parse_address
from darkroom.lora.keys import _UNSUPPORTED
from darkroom.lora.presets import read_presets
from hosts import FileHost, digest_of, file_host, lora_file

PAGE = (Path(__file__).parents[2] / "docs" / "loras.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (darkroom .*)$", PAGE, re.MULTILINE)
FILM = lora_file(seed=99)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path) -> Iterator[FileHost]:
    """Hugging Face with a file for every preset, each of which fits the tiny checkpoint."""
    for name in [*os.environ]:
        if name.startswith("DARKROOM_"):
            monkeypatch.delenv(name)
    with file_host() as server:
        for number, preset in enumerate(read_presets(None).values()):
            address = parse_address(preset.source, field="source")
            assert isinstance(address, HubFile)
            path = address.path or "only.safetensors"
            server.put_on_hub(address.repository, path, lora_file(seed=number), commit=f"{number:040x}")
            listing = json.dumps({"siblings": [{"rfilename": path}]}).encode()
            server.put(f"api/models/{address.repository}/revision/main", listing)
        monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("DARKROOM_CHECKPOINT", str(tiny_checkpoint))
        monkeypatch.setenv("DARKROOM_FETCH_ALLOW", f"{server.address},{server.hub_address}")
        monkeypatch.setenv("DARKROOM_HUB_URL", server.hub)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "film.safetensors").write_bytes(FILM)
        yield server


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", shlex.split(command.replace("DIGEST", digest_of(FILM)[:12])))
    with pytest.raises(SystemExit) as exited:
        main()
    return int(exited.value.code or 0)


@pytest.mark.usefixtures("hub", "no_ones_log")
def test_every_command_runs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In the page's order, and afterwards all presets are installed."""
    assert len(COMMANDS) >= 9
    failed = {command: code for command in COMMANDS if (code := run(command, monkeypatch))}
    assert not failed, capfd.readouterr().err
    capfd.readouterr()
    run("darkroom loras list --json", monkeypatch)
    listed = {one["name"]: one for one in json.loads(capfd.readouterr().out)}
    assert all(listed[name]["installed"] for name in read_presets(None))
    assert listed["relight"]["digest"] == digest_of(FILM)
    assert "film" not in listed


def test_its_table_is_the_presets() -> None:
    """Every preset with its source, trigger and scale."""
    for preset in read_presets(None).values():
        assert f"| `{preset.name}` | {preset.source} | {preset.trigger or '–'} | {preset.scale:g} |" in PAGE


def test_its_toml_is_read(tmp_path: Path) -> None:
    """As the setting would have it: what it names replaces the table's, the rest stays."""
    (tmp_path / "own.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    own, table = read_presets(tmp_path / "own.toml"), read_presets(None)
    assert own["relight"].digest
    assert own["relight"].trigger == table["relight"].trigger
    assert (own["next_scene"].scale, own["film"].trigger) == (0.6, "film grain")
    assert own["eraser"].source == "/srv/loras/eraser.safetensors"
    assert own.keys() == {*table, "film"}


def test_it_names_what_is_refused() -> None:
    """Every kind that a file is refused for by name."""
    assert all(kind in PAGE for kind in _UNSUPPORTED.values())
