"""A run that begins with what another has learnt."""

import json
import shutil

import torch

from training.export import export
from training.joint_stage import JointRun
from training.start import begin, keep

CPU = torch.device("cpu")


def test_a_run_begins_where_another_ended(small, run_folder, tmp_path):
    """Its editor has the other's averaged weights, to bfloat16's rounding; its VAE is the other's, statistics too. A
    run that has gone further is left as it is."""
    first = JointRun(small, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False)
    first.advance()
    first.save()
    export(small, run_folder, tmp_path / "checkpoint")
    keep(run_folder, tmp_path / "start")
    shutil.copytree(tmp_path / "checkpoint" / "vae", tmp_path / "start" / "vae")
    out = tmp_path / "second"
    shutil.copytree(run_folder / "pool", out / "pool")
    begin(small, tmp_path / "start", out)
    second = JointRun(small, out, out / "vae" / "finished.pt", device=CPU, compiled=False)
    theirs = first.averaged.state_dict()
    for name, value in second.editor.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-2, atol=1e-6)
    made, kept = (torch.load(folder / "vae" / "finished.pt", weights_only=True) for folder in (out, run_folder))
    assert made["mean"] == kept["mean"]
    for name, value in made["weights"].items():
        torch.testing.assert_close(value, kept["weights"][name], rtol=1e-2, atol=1e-6)
    second.advance()
    second.save()
    begin(small, tmp_path / "start", out)
    third = JointRun(small, out, out / "vae" / "finished.pt", device=CPU, compiled=False)
    assert third.step == 1
    assert json.loads((tmp_path / "start" / "vae" / "config.json").read_text())["latents_mean"] == made["mean"]
