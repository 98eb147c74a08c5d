"""The LoRAs' benchmark, gone through once on the tiny checkpoint: its figures say nothing, its tables must be whole."""

import json

import pytest
import torch

from benchmarks import loras
from darkroom.engine.engine import Engine
from darkroom.engine.held import values_of

WEIGHT = "transformer_blocks.0.img_mlp.net.2"


@pytest.fixture(scope="module")
def results(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    loras.main(["--rounds", "3", "--jobs", "3", "--checkpoint", str(tiny_checkpoint), "--out", str(folder)])
    return json.loads((folder / "loras.json").read_text()), (folder / "loras.md").read_text()


def test_every_figure_is_in_the_page(results):
    """Each comparison has its row, with its ratio; and each way is told in copies of the weights."""
    found, page = results
    for row in found["against_peft"]:
        assert f"| {row['what']} | {row['peft']} | **{row['ratio']['median']:.2f}× (" in page
    for name in found["against_copy"]:
        assert f"| {name} | **" in page
    assert "There is no affinity" in page


def test_loading_and_merging_make_up_a_first_use(results):
    """On either side, and each took time."""
    found, _ = results
    for name in ("ours, first", "PEFT, first"):
        parts = {part: spread["median"] for part, spread in found["seconds"][name].items()}
        assert min(parts.values()) > 0
        assert parts["load"] + parts["merge"] == pytest.approx(parts["total"], abs=1e-5)


def test_a_kept_set_is_not_merged_again(results):
    """Its switch is the quickest of ours by far, or the benchmark times something else."""
    found, _ = results
    taken = {name: parts["total"]["median"] for name, parts in found["seconds"].items()}
    assert 2 * taken["ours, kept merged"] < taken["ours, adapters in memory"]


@pytest.fixture
def files(tiny_checkpoint, tmp_path):
    made, _ = loras.make_files(tiny_checkpoint, tmp_path)
    return made


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_both_sides_come_to_the_same_weights(tiny_checkpoint, files, monkeypatch):
    """What is timed is the same work: after a switch both hold the second set's sum, and afterwards what was loaded."""
    transformer = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")._models.transformer
    ours, peft = loras.Ours(transformer, files), loras.Peft(tiny_checkpoint, torch.float32, files)
    theirs = peft.pipeline.transformer
    before = theirs.get_submodule(WEIGHT).weight.detach().clone()
    seen = {"ours": [], "PEFT": []}

    def looking(call):
        call()
        seen["ours"].append(values_of(transformer.get_submodule(WEIGHT), "weight").clone())
        module = theirs.get_submodule(WEIGHT)
        seen["PEFT"].append(getattr(module, "base_layer", module).weight.detach().clone())
        return 0.0

    monkeypatch.setattr(loras, "seconds", looking)
    for name, calls in {
        "ours": (ours.merged_anew, ours.files_again, ours.kept),
        "PEFT": (peft.files_again, peft.in_memory),
    }.items():
        for call in calls:
            call(0)
        after = seen[name][-len(calls) :]
        assert not torch.allclose(after[0], before, atol=1e-4)
        assert all(torch.allclose(each, after[0], atol=1e-5) for each in after)
    torch.testing.assert_close(seen["ours"][0], seen["PEFT"][-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values_of(transformer.get_submodule(WEIGHT), "weight"), before)


def test_what_is_copied_is_what_a_set_changes(tiny_checkpoint, files):
    """All matrices of attention and MLP in both streams, once each, in the dtype computed in."""
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    sizes = engine._models.transformer.config
    copied = loras.Ours(engine._models.transformer, files).touched()
    parameters = sizes.num_layers * (8 + 2 * 2 * 4) * sizes.dim**2
    assert sum(each.numel() for each in copied) == parameters
    assert {each.dtype for each in copied} == {torch.bfloat16}
