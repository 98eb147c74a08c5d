"""A run that begins with what another has learnt."""

import shutil
from dataclasses import replace

import pytest
import torch

from training.export import export, stored
from training.joint_stage import JointRun
from training.start import begin
from training.transformer_twin import adapter_key

CPU = torch.device("cpu")


@pytest.fixture
def first(small, run_folder):
    """A run after a step, exported."""
    run = JointRun(small, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False)
    run.advance()
    run.save()
    export(small, run_folder, run_folder / "checkpoint")
    return run


def resumed(config, out):
    return JointRun(config, out, out / "vae" / "finished.pt", device=CPU, compiled=False)


def test_a_run_begins_where_another_ended(first, small, run_folder, tmp_path_factory):
    """From the exported files alone: its editor and VAE are the other's to the files' rounding and no further, its
    latents' statistics and its tokens the very same."""
    out = tmp_path_factory.mktemp("second")
    shutil.copytree(run_folder / "pool", out / "pool")
    begin(small, run_folder / "checkpoint", out)
    second = resumed(small, out)
    theirs = first.averaged.state_dict()
    assert second.editor.state_dict().keys() == theirs.keys()
    for name, value in second.editor.state_dict().items():
        assert torch.equal(value, stored(name.removeprefix("transformer."), theirs[name]).float()), name
    made, kept = (torch.load(folder / "vae" / "finished.pt", weights_only=True) for folder in (out, run_folder))
    assert (made["mean"], made["std"]) == (kept["mean"], kept["std"])
    for name, value in made["weights"].items():
        assert torch.equal(value, kept["weights"][name].bfloat16().float()), name
    asked = "Make the mug red."
    assert second.vocabulary.rest(asked) == first.vocabulary.rest(asked)
    assert second.vocabulary.opening(2) == first.vocabulary.opening(2)


def test_an_adapter_whose_rank_was_raised_does_what_it_did(first, small, run_folder, tmp_path_factory):
    """The factors' product is the same; what is new of it can learn."""
    out, preset = tmp_path_factory.mktemp("wider"), "relight"
    shutil.copytree(run_folder / "pool", out / "pool")
    rank = small.transformer.rank(preset)
    wider = replace(small, transformer=replace(small.transformer, adapter_ranks={preset: rank + 3}))
    begin(wider, run_folder / "checkpoint", out)
    made, kept = (run.averaged.adapters[preset] for run in (resumed(wider, out), first))
    key = adapter_key(1, "attn.to_q")
    assert made.down[key].shape == (rank + 3, kept.down[key].shape[1])
    torch.testing.assert_close(made.change(1, "attn.to_q"), kept.change(1, "attn.to_q"), rtol=2e-2, atol=1e-4)
    assert made.down[key][-3:].abs().min() > 0


def test_a_run_that_has_gone_further_is_left_as_it_is(first, small, run_folder):
    """What it has trained is not overwritten."""
    out, before = run_folder, (run_folder / "vae" / "finished.pt").read_bytes()
    begin(small, run_folder / "checkpoint", out)
    assert (out / "vae" / "finished.pt").read_bytes() == before
    assert resumed(small, out).step == first.step == 1
