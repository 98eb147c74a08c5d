"""The benchmark, gone through once on the tiny checkpoint: its figures say nothing, its tables must be whole."""

import json
import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.run import main


@pytest.fixture(scope="module")
def results(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    main(["--quick", "--checkpoint", str(tiny_checkpoint), "--out", str(folder)])
    return folder


def test_both_sides_are_timed_by_stage(results):
    """Each stage of either side took time, and together they are no more than the whole."""
    (row, *_) = json.loads((results / "bench.json").read_text())["comparison"]
    for stages in row["seconds"].values():
        taken = {name: spread["median"] for name, spread in stages.items()}
        assert min(taken.values()) > 0
        assert sum(taken.values()) - taken["total"] <= taken["total"] + 1e-4


def test_every_linear_layer_is_counted(results):
    """The profiler's record holds at least what one step multiplies, worked out from the tiny model's sizes."""
    rows = json.loads((results / "bench.json").read_text())["linear"]
    tokens, width, layers = 144 + 100, 64, 2
    assert all(row["gflop_in_a_stage"] >= 2 * 2 * tokens * 12 * width**2 * layers / 1e9 for row in rows)
    assert all(row["of_floor"] > 0 for row in rows)


def test_every_ablation_has_a_row_in_the_table(results):
    """With a ratio, or a word on why it has none here."""
    rows = json.loads((results / "bench.json").read_text())["ablations"]["rows"]
    table = (results / "bench.md").read_text()
    for row in rows:
        (line,) = re.findall(rf"^\| {re.escape(row['name'])} \|.*$", table, re.MULTILINE)
        assert re.search(r"\d×|not in use", line)


def test_the_plot_has_a_curve_for_either_side_in_each_panel(results):
    """Three panels of two curves, in well-formed SVG."""
    root = ET.fromstring((results / "growth.svg").read_text())
    assert len(root.findall("{*}polyline")) == 6
