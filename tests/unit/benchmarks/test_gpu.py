"""The GPU's benchmark, at toy size on a CPU: that all of it runs, and writes down what it finds."""

import json
import time

import pytest
import torch

from benchmarks import gpu, gpu_bench, gpu_checkpoint, gpu_reference, gpu_report
from benchmarks.gpu_edits import row_name
from benchmarks.gpu_steps import forward_flops
from darkroom.engine.kernels import halved
from darkroom.engine.transformer import TransformerConfig


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_every_section_runs_whole(tmp_path):
    """Each finds something, none ends early, and the page tells the measured times beside those to be reached."""
    assert gpu.main(["--device", "cpu", "--toy", "--minutes", "4", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert list(report["sections"]) == list(gpu.SECTIONS)
    assert {name: section.get("error") for name, section in report["sections"].items() if "error" in section} == {}
    assert all(section["found"] for section in report["sections"].values())
    assert report["sections"]["reference"]["found"]["small"]["float32"] < 1e-5
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"| {row_name(steps, 1, tier)}" in page for steps in (40, 8, 4) for tier in ("exact", "fast"))
    assert "toy sizes" in page


def test_what_goes_wrong_in_a_section_is_written_down(tmp_path):
    """With what it had found by then, be it an error or too much time."""

    def fails(_bench):
        yield "first", 1
        raise RuntimeError("out of luck")

    def hangs(_bench):
        yield "first", 1
        time.sleep(60)

    bench = gpu_bench.Bench(
        device=torch.device("cpu"),
        toy=True,
        checkpoint=tmp_path,
        diffusers=None,
        compile="auto",
        deadline=time.monotonic() + 60,
    )
    for section, reason in ((fails, "out of luck"), (hangs, "stopped after 1 s")):
        found = {"seconds": 0.0, "found": {}}
        gpu._run(section, bench, 1, found, lambda: None)
        assert found["found"] == {"first": 1}
        assert reason in found["error"]


def test_times_are_shown_as_reached_or_not():
    """Measured ones take the place of extrapolated ones."""
    row = dict.fromkeys(("encode", "denoise", "decode", "prepare", "read", "png", "peak_gb"), 0.1)
    name = row_name(40, 1, "exact")
    sections = {"exact": {"found": {name: {**row, "total": 21.0, "extrapolated": True}}}}
    assert f"| {name} (extrapolated) | 21.00 | 21.5 ✓ |" in "\n".join(gpu_report._edits(sections))
    sections["whole"] = {"found": {name: {**row, "total": 22.0}}}
    assert f"| {name} | 22.00 | 21.5 ✗ |" in "\n".join(gpu_report._edits(sections))


def test_weights_in_published_order_are_those_before_they_were_reordered():
    rows = torch.randn(2 * 8, 3)
    assert torch.equal(gpu_reference.unhalved(halved(rows, 2), 2), rows)


def test_a_pass_costs_the_products_of_its_shapes():
    """At the published size and one picture, what is known of it: 167 TFLOP, less what the last block leaves out."""
    inputs = gpu_reference.make_inputs(
        TransformerConfig(), side=64, pictures=1, prompts=1, device=torch.device("meta"), dtype=torch.bfloat16
    )
    assert forward_flops(TransformerConfig(), inputs) / 1e12 == pytest.approx(166, abs=2)


def test_hollow_files_hold_the_published_shapes_and_take_no_disk(tmp_path):
    """As large as the published ones: 40.86 GB, 16.58 GB and 0.25 GB."""
    folder = gpu_checkpoint.hollow_checkpoint(tmp_path / "checkpoint", toy=False)
    files = list(folder.rglob("*.safetensors"))
    assert sorted(round(file.stat().st_size / 1e9, 2) for file in files) == [0.25, 16.58, 40.86]
    assert sum(512 * file.stat().st_blocks for file in files) < 10e6
