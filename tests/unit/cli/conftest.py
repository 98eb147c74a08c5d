import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

from darkroom.cli.app import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch, no_ones_log) -> None:
    """No setting but a data folder of the test's own."""
    for name in [*os.environ]:
        if name.startswith(("DARKROOM_", "SEGMIND_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def darkroom(monkeypatch, capfd) -> Callable[..., Ran]:
    """Runs the command in this process, as its script would."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["darkroom", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            main()
        return Ran(exited.value.code or 0, *capfd.readouterr())

    return run
