from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from training.config import Config, on_gpu
from training.fast_stage import FAST, FastRun
from training.joint_stage import JointRun
from training.pool import save
from training.vae_stage import VaeRun

CPU = torch.device("cpu")


def test_a_vae_run_resumed_is_the_run_that_never_stopped(small: Config, run_folder: Path):
    """Weights, averages and the optimiser's state are saved, and a step's batch and noise follow from its number."""
    pictures = torch.load(run_folder / "pool" / "judged.pt", weights_only=True)
    whole = VaeRun(small, run_folder / "whole", device=CPU, compiled=False)
    first = VaeRun(small, run_folder / "parts", device=CPU, compiled=False)
    for _ in range(4):
        whole.advance(pictures)
    for _ in range(2):
        first.advance(pictures)
    first.save()
    second = VaeRun(small, run_folder / "parts", device=CPU, compiled=False)
    assert second.step == 2
    for _ in range(2):
        second.advance(pictures)
    _assert_same(whole.twin.state_dict(), second.twin.state_dict())
    _assert_same(whole.averaged.state_dict(), second.averaged.state_dict())


def test_a_joint_run_resumed_is_the_run_that_never_stopped(small: Config, run_folder: Path):
    """The same, for text encoder, transformer and adapters, across the change to flow matching."""
    vae = run_folder / "vae" / "finished.pt"
    whole = JointRun(small, run_folder, vae, device=CPU, compiled=False)
    first = JointRun(small, run_folder, vae, device=CPU, compiled=False)
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save()
    second = JointRun(small, run_folder, vae, device=CPU, compiled=False)
    assert second.step == 2
    for _ in range(2):
        second.advance()
    _assert_same(whole.editor.state_dict(), second.editor.state_dict())
    _assert_same(whole.averaged.state_dict(), second.averaged.state_dict())


def test_jobs_are_drawn_by_their_shares_alone(small: Config, run_folder: Path):
    """Several batches of a step may be of one job: else a large share would be a smaller one in truth."""
    one = replace(small, joint_recipe=replace(small.joint_recipe, parts=3, shares={"texture_apply": 1.0}))
    run = JointRun(one, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False)
    assert run.advance().keys() == {"texture_apply", "loss"}


def test_on_a_gpu_a_step_has_more_samples(small: Config, run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In every stage; all else stays as the config has it."""
    larger = on_gpu(small, times=3)
    assert (larger.vae_recipe.crops, larger.vae_recipe.wholes) == (6, 3)
    run = JointRun(larger, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False)
    fast = FastRun(larger, run_folder, run_folder / "vae" / "finished.pt", _saved(run, run_folder), device=CPU)
    for stage in (run, fast):
        drawn = Mock(wraps=stage.pool.draw)
        monkeypatch.setattr(stage.pool, "draw", drawn)
        stage.advance()
        assert [call.args[1] for call in drawn.call_args_list] == [6, 6]


def test_an_8_step_run_resumed_is_the_run_that_never_stopped(small: Config, run_folder: Path):
    """The same for the 8-step LoRA, which is all that its stage changes."""
    vae = run_folder / "vae" / "finished.pt"
    run = JointRun(small, run_folder, vae, device=CPU, compiled=False)
    joint = _saved(run, run_folder)
    whole, first = (FastRun(small, run_folder, vae, joint, device=CPU) for _ in range(2))
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save()
    second = FastRun(small, run_folder, vae, joint, device=CPU)
    assert second.step == 2
    for _ in range(2):
        second.advance()
    _assert_same(whole.adapter.state_dict(), second.adapter.state_dict())
    trained = {f"adapters.{FAST}.{name}" for name in whole.adapter.state_dict()}
    kept = {name: value for name, value in second.editor.state_dict().items() if name not in trained}
    _assert_same(run.averaged.state_dict(), kept)


def _saved(run: JointRun, folder: Path) -> Path:
    save(run.averaged.state_dict(), folder / "joint.pt")
    return folder / "joint.pt"


def _assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
