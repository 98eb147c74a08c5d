"""The GPU's benchmark, at toy size on a CPU: that all of it runs, and writes down what it finds."""

import json
import sys
import time
import zipfile
from contextlib import suppress

import pytest
import torch

from benchmarks import gpu, gpu_bench, gpu_checkpoint, gpu_edits, gpu_loras, gpu_parity, gpu_reference, gpu_report
from benchmarks.gpu_edits import row_name
from benchmarks.gpu_steps import forward_flops
from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.published import PUBLISHED
from darkroom.engine.kernels import halved
from darkroom.engine.transformer import TransformerConfig
from darkroom.memory.needs import Needs, Part
from darkroom.memory.plan import Device, make_plan

ROW = dict.fromkeys(("encode", "denoise", "decode", "prepare", "read", "png", "peak_gb"), 0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_every_section_runs_whole(tmp_path):
    """Each finds something, none ends early, and the page tells the measured times beside those to be reached."""
    assert gpu.main(["--device", "cpu", "--toy", "--minutes", "4", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert list(report["sections"]) == list(gpu.SECTIONS)
    assert {name: section.get("error") for name, section in report["sections"].items() if "error" in section} == {}
    found = {name: section["found"] for name, section in report["sections"].items()}
    assert all(found.values())
    failed = [(name, row) for rows in found.values() for name, row in rows.items() if "error" in str(row)]
    assert failed == []
    assert found["reference"]["small"]["float32"] < 1e-5
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"| {row_name(steps, 1, tier)}" in page for steps in (40, 8, 4) for tier in ("exact", "fast"))
    assert "toy sizes" in page


def a_bench(checkpoint):
    return gpu_bench.Bench(
        device=torch.device("cpu"),
        toy=True,
        checkpoint=checkpoint,
        diffusers=None,
        compile="auto",
        deadline=time.monotonic() + 60,
    )


def test_what_goes_wrong_in_a_section_is_written_down(tmp_path):
    """With what it had found by then, be it an error or too much time."""

    def fails(_bench):
        yield "first", 1
        raise RuntimeError("out of luck")

    def hangs(_bench):
        yield "first", 1
        time.sleep(60)

    for section, reason in ((fails, "out of luck"), (hangs, "stopped after 1 s")):
        found = {"seconds": 0.0, "found": {}}
        gpu._run(section, a_bench(tmp_path), 1, found, lambda: None)
        assert found["found"] == {"first": 1}
        assert reason in found["error"]


def test_a_section_s_end_is_not_caught_on_the_way(tmp_path, monkeypatch):
    """By what takes any `Exception` for its own; and who catches even more is told again."""
    monkeypatch.setattr(gpu, "AGAIN_S", 0.1)
    caught = []

    def stubborn(_bench):
        yield "first", gpu_bench.tried(lambda: 1)
        with suppress(Exception):
            try:
                time.sleep(60)
            except BaseException as told:  # noqa: BLE001  as libraries' callbacks may
                caught.append(told)
                time.sleep(60)
        yield "second", gpu_bench.tried(time.sleep, 60)

    found = {"seconds": 0.0, "found": {}}
    gpu._run(stubborn, a_bench(tmp_path), 1, found, lambda: None)
    assert found["found"] == {"first": 1}
    assert "stopped after 1 s" in found["error"]
    assert len(caught) == 1


def test_a_row_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    """Its error takes the place of its figures, in every table of rows; the page has no row for it, but a line."""

    def timed(_bench, tier, steps, _pictures, *, guided=True):
        if steps == 8 and not guided:
            raise RuntimeError("no kernel for this")
        return {**ROW, "total": float(steps)}

    monkeypatch.setattr(gpu_edits, "_timed", timed)
    found = dict(gpu_edits.exact(a_bench(tmp_path)))
    assert found[row_name(8, 1, "exact")] == {"error": "RuntimeError: no kernel for this"}
    assert found[row_name(4, 1, "exact")]["total"] == 4.0
    assert found[row_name(40, 1, "exact")]["extrapolated"]
    report = {"date": "", "seconds": 1.0, "toy": True, "sections": {"exact": {"seconds": 1.0, "found": found}}}
    page = gpu_report.page(report)
    assert f"| {row_name(8, 1, 'exact')}" not in page
    assert f"**{row_name(8, 1, 'exact')} failed**: RuntimeError: no kernel for this" in page
    assert f"| {row_name(4, 1, 'exact')} | 4.00 |" in page
    assert "no kernel for this" in capsys.readouterr().err


def test_all_time_is_counted_from_when_the_process_began(tmp_path):
    """What was spent on imports is no longer there for the sections."""
    gpu.main(
        ["--device", "cpu", "--toy", "--minutes", "1", "--out", str(tmp_path), "--only", "load"],
        started=time.monotonic() - 60,
    )
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["seconds"] >= 60
    assert "no time was left" in report["sections"]["load"]["error"]
    assert time.monotonic() > gpu.STARTED


def test_the_engines_held_and_what_a_section_adds_fit_an_h200():
    """By the plan's figures, in the order in which sections run: an engine stays once it is loaded."""
    needs = Needs.read(PUBLISHED[gpu_checkpoint.MODEL], WorkingSizes())
    h200 = Device(name="H200", kind="cuda", memory_bytes=143_771 * 2**20, multiplies_fp8=True)
    plans = {tier: make_plan(needs, h200, dtype="bfloat16", tier=tier, cache_bytes=0) for tier in ("exact", "fast")}
    weights_bytes = {
        tier: plan.device_bytes - plan.merged_bytes - plan.working_bytes - plan.context_bytes
        for tier, plan in plans.items()
    }
    exact = plans["exact"]
    kept_sets = 2 * exact[Part.NEXT_COPY].size_bytes
    adds_bytes = {"loras": kept_sets, "floors": 2 * 4 * 2**30}
    held_bytes = weights_bytes["exact"]
    for section in gpu.SECTIONS:
        held_bytes += weights_bytes["fast"] if section == "fast" else 0
        taken = held_bytes + exact.working_bytes + exact.context_bytes + adds_bytes.get(section, 0)
        assert taken < 0.95 * h200.memory_bytes, section


def test_a_switch_of_loras_that_fails_leaves_the_model_bare(tmp_path, monkeypatch):
    """What is measured after it is the transformer as it was loaded."""
    bench = a_bench(gpu_checkpoint.hollow_checkpoint(tmp_path / "checkpoint", toy=True))
    transformer = bench.transformer("exact")
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    monkeypatch.setattr(gpu_loras, "_copied", lambda *_: (_ for _ in [("copied", 1 / 0)]))
    with pytest.raises(ZeroDivisionError):
        dict(gpu_loras.loras(bench))
    after = transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_ours_is_timed_once_to_be_compared_twice(tmp_path, monkeypatch):
    """What stands beside diffusers as it is stands beside the compiled one too."""
    bench = a_bench(gpu_checkpoint.hollow_checkpoint(tmp_path / "checkpoint", toy=True))
    steps = []
    monkeypatch.setattr(gpu_parity, "our_steps", lambda *_: steps.append("ours"))
    monkeypatch.setattr(gpu_parity, "their_steps", lambda *_: steps.append("theirs"))
    ours_s = {}
    first, second = (gpu_parity._race(bench, bench.transformer("exact"), None, 1, ours_s) for _ in range(2))
    assert first["ours_s"] == second["ours_s"]
    assert steps.count("theirs") == 2 * steps.count("ours")


def test_the_reference_is_unpacked_once(tmp_path, monkeypatch):
    """A wheel is megabytes of files, and every section that compares asks for it."""
    wheel = tmp_path / "diffusers-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("nothing.py", "")
    monkeypatch.setattr(gpu_reference.sys, "path", [*sys.path])
    before = len(sys.path)
    kinds = {gpu_reference._import_reference(wheel) for _ in range(3)}
    assert len(kinds) == 1
    assert len(sys.path) == before + 1


def test_times_are_shown_as_reached_or_not():
    """Measured ones take the place of extrapolated ones."""
    name = row_name(40, 1, "exact")
    sections = {"exact": {"found": {name: {**ROW, "total": 21.0, "extrapolated": True}}}}
    assert f"| {name} (extrapolated) | 21.00 | 21.5 ✓ |" in "\n".join(gpu_report._edits(sections))
    sections["whole"] = {"found": {name: {**ROW, "total": 22.0}}}
    assert f"| {name} | 22.00 | 21.5 ✗ |" in "\n".join(gpu_report._edits(sections))
    sections["whole"] = {"found": {name: {"error": "RuntimeError: none"}}}
    assert f"| {name} (extrapolated) | 21.00 |" in "\n".join(gpu_report._edits(sections))


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
