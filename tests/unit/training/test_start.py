"""A run that begins with what another has learnt."""

import shutil

import pytest
import torch

from training.export import export, stored
from training.joint_stage import JointRun
from training.start import begin

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


def test_a_run_that_has_gone_further_is_left_as_it_is(first, small, run_folder):
    """What it has trained is not overwritten."""
    out, before = run_folder, (run_folder / "vae" / "finished.pt").read_bytes()
    begin(small, run_folder / "checkpoint", out)
    assert (out / "vae" / "finished.pt").read_bytes() == before
    assert resumed(small, out).step == first.step == 1
