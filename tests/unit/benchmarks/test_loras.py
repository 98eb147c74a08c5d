"""The LoRAs' benchmark, gone through once on the tiny checkpoint: its figures say nothing, its tables must be whole."""

import json
from itertools import product

import pytest
import torch

from benchmarks import loras
from darkroom.engine.adapter import load_adapter, merged_weights
from darkroom.engine.engine import Engine
from darkroom.engine.held import values_of
from darkroom.engine.transformer import FUSED


@pytest.fixture(scope="module")
def results(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    loras.main(["--rounds", "3", "--jobs", "12", "--checkpoint", str(tiny_checkpoint), "--out", str(folder)])
    return json.loads((folder / "loras.json").read_text()), (folder / "loras.md").read_text()


@pytest.fixture
def files(tiny_checkpoint, tmp_path):
    made, _ = loras.make_files(tiny_checkpoint, tmp_path)
    return made


def test_every_figure_is_in_the_page(results):
    """Each comparison has its row, with its ratio; and each way is told in copies of the weights."""
    found, page = results
    for row in found["against_peft"]:
        assert f"| {row['what']} | {row['peft']} | **{loras._times(row['ratio'])}**" in page
    for name, ratio in found["against_copy"].items():
        assert f"| {name} | **{loras._times(ratio)}**" in page
    for name, way in found["stream"]["ways"].items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {way['switches']} |" in row
        assert name == "under one set" or f"**{found['stream']['longer'][name]:+.1%}**" in row


def test_loading_and_merging_make_up_a_first_use(results):
    """On either side, and each took time."""
    found, _ = results
    for name in ("ours, first", "PEFT, first"):
        load, merge, total = (found["seconds"][name][part] for part in ("load", "merge", "total"))
        assert min(load["least"], merge["least"]) > 0
        assert load["least"] + merge["least"] <= total["least"] + 1e-5
        assert load["most"] + merge["most"] >= total["most"] - 1e-5


def test_a_kept_set_is_not_merged_again(results):
    """Its switch is the quickest of ours by far, or the benchmark times something else."""
    found, _ = results
    taken = {name: parts["total"]["median"] for name, parts in found["seconds"].items()}
    assert 2 * taken["ours, kept merged"] < taken["ours, adapters in memory"]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_both_sides_come_to_the_set_switched_to(tiny_checkpoint, files, monkeypatch):
    """What is timed is the same work, to either set: its sum in every layer, and of ours afterwards what was loaded."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")._models.transformer
    ours, peft = loras.Ours(transformer, files), loras.Peft(tiny_checkpoint, torch.float32, files)
    theirs = peft.pipeline.transformer
    base = {name: value.clone() for name, value in theirs.state_dict().items()}
    adapters = [(load_adapter(file.canonical.path), 1.0) for file in files]
    merged = [merged_weights(base, [adapters[number] for number in chosen]) for chosen in loras.TWO]
    parts = {part for parts in FUSED.values() for part in parts}
    apart = [name for name in merged[0] if name.split(".")[-2] not in parts]
    switches = []

    def weight_of_ours(name):
        return values_of(transformer.get_submodule(name.removesuffix(".weight")), "weight")

    def weight_of_theirs(name):
        module = theirs.get_submodule(name.removesuffix(".weight"))
        return getattr(module, "base_layer", module).weight

    def assert_all(weight_of, names, expected):
        for name in names:
            torch.testing.assert_close(weight_of(name), expected[name], rtol=1e-4, atol=1e-5, msg=name)

    def looking(weight_of, names, expected):
        def seconds(switch):
            switch()
            assert_all(weight_of, names, expected)
            switches.append(switch)
            return 0.0

        return seconds

    for calls, weight_of, names in (
        ((ours.merged_anew, ours.files_again, ours.kept), weight_of_ours, apart),
        ((peft.files_again, peft.in_memory), weight_of_theirs, merged[0]),
    ):
        for call, number in product(calls, (0, 1)):
            monkeypatch.setattr(loras, "seconds", looking(weight_of, names, merged[1 - number]))
            call(number)
    assert len(switches) == 10
    assert_all(weight_of_ours, apart, base)


def test_what_is_copied_is_what_a_set_changes(tiny_checkpoint, files):
    """All matrices of attention and MLP in both streams, once each, in the dtype computed in."""
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    sizes = engine._models.transformer.config
    copied = loras.Ours(engine._models.transformer, files).touched()
    parameters = sizes.num_layers * (8 + 2 * 2 * 4) * sizes.dim**2
    assert sum(each.numel() for each in copied) == parameters
    assert {each.dtype for each in copied} == {torch.bfloat16}


def test_the_stream_is_the_same_jobs_each_way(results):
    """Affinity switches sets less often, one set not at all; and merging is counted where it is done."""
    found, _ = results
    ways = found["stream"]["ways"]
    switches = {name: way["switches"] for name, way in ways.items()}
    assert switches["under one set"] == 0 < switches["with affinity"] < switches["as they come"]
    assert found["stream"]["drawn"] - 1 <= switches["with affinity"]
    assert ways["under one set"]["merging_s"] < ways["with affinity"]["merging_s"]
    assert all(way["making"]["count"] == 12 for way in ways.values())
