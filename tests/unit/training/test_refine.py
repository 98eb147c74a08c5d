"""One adapter that goes on alone, on a checkpoint that is otherwise finished."""

import shutil

import pytest
import torch

from darkroom.checkpoint.declaration import read_declaration
from training.export import export
from training.joint_stage import JointRun
from training.refine import REFINE, RefineRun, refine
from training.start import begin

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(small, run_folder):
    """As an earlier run left it."""
    JointRun(small, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False).save()
    export(small, run_folder, run_folder / "finished")
    return run_folder / "finished"


@pytest.fixture
def out(run_folder, tmp_path_factory):
    """A run's folder with a pool of its own."""
    made = tmp_path_factory.mktemp("refined")
    shutil.copytree(run_folder / "pool", made / REFINE / "pool")
    return made


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_its_file_and_the_manifest_are_all_that_changes(small, checkpoint, out):
    """It can be read, and whatever else is in the checkpoint is the very same; a further call trains no further."""
    before = files(checkpoint)
    made = refine(small, checkpoint, out, device=CPU, compiled=False)
    after = files(made)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"loras/texture_apply.safetensors", "manifest.json"}
    assert read_declaration(made).loras["texture_apply"] == made / "loras" / "texture_apply.safetensors"
    assert refine(small, checkpoint, out, device=CPU, compiled=False) == made
    assert files(made) == after


def test_a_run_resumed_is_the_run_that_never_stopped(small, checkpoint, out):
    """Across the change to other times; and nothing but the adapter is trained."""
    begin(small, checkpoint, out)
    whole, first = (RefineRun(small, out, device=CPU, compiled=False) for _ in range(2))
    frozen = {name: value.clone() for name, value in whole.editor.state_dict().items()}
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save()
    second = RefineRun(small, out, device=CPU, compiled=False)
    assert second.step == 2
    for _ in range(2):
        second.advance()
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, second.averaged.state_dict()[name]), name
    moved = {name for name, value in whole.editor.state_dict().items() if not torch.equal(value, frozen[name])}
    assert moved == {f"adapters.texture_apply.{name}" for name in whole.adapter.state_dict()}
