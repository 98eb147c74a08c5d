"""The shipped checkpoint's benchmark, gone through once on the tiny one: its figures say nothing, its table must be
whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import nano


def test_every_figure_is_in_the_page(tiny_checkpoint, tmp_path):
    """A row for one picture and one for two, and each ratio is the reference's time over ours."""
    nano.main(["--checkpoint", str(tiny_checkpoint), "--rounds", "1", "--out", str(tmp_path)])
    found, page = json.loads((tmp_path / "nano.json").read_text()), (tmp_path / "nano.md").read_text()
    assert [row["pictures"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        ours, theirs = (row["seconds"][side]["median"] for side in ("ours", "reference"))
        assert row["ratio"]["median"] == pytest.approx(theirs / ours, rel=1e-3)
        assert f"| {row['pictures']} | **{row['ratio']['median']:.2f}×" in page


def test_the_service_s_process_does_not_import_the_engine() -> None:
    """Its worker would be told by it how threads wait, and not by the service."""
    program = "import sys, benchmarks.nano; sys.exit(any(name.startswith('darkroom.engine') for name in sys.modules))"
    root = Path(nano.__file__).parents[1]
    places = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=places)
