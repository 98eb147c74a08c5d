"""From a run's folder to the package."""

import json

import pytest
import torch

from darkroom.checkpoint.inspect import inspect
from training import ship as module
from training.export import export
from training.joint_stage import JointRun
from training.refine import REFINED
from training.ship import ship


@pytest.fixture
def run(small, run_folder):
    """A run after a step, with a log."""
    run = JointRun(small, run_folder, run_folder / "vae" / "finished.pt", device=torch.device("cpu"), compiled=False)
    run.advance()
    run.save()
    (run_folder / "joint" / "log.jsonl").write_text('{"step": 1}\n')
    return run_folder


def test_a_run_is_shipped(small, run, tmp_path):
    """The checkpoint can be served and its manifest knows it; what was shipped before is gone. Its log comes beside
    those of earlier runs."""
    to, logs = tmp_path / "package" / "nano", tmp_path / "logs"
    for old in (to / "old", logs / "1"):
        old.mkdir(parents=True)
    told = ship(small, run, to=to, logs=logs)
    assert inspect(to).problems == ()
    there = {path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file()}
    assert there == json.loads((to / "manifest.json").read_text()).keys() | {"manifest.json"}
    assert [path.relative_to(logs).as_posix() for path in logs.rglob("*") if path.is_file()] == ["2/joint/log.jsonl"]
    assert [path.name for path in to.parent.iterdir()] == ["nano"]
    assert str(to) in told[0]


def test_what_was_refined_is_shipped_as_it_is(small, run, tmp_path):
    """In place of what the run's weights would be written to."""
    export(small, run, run / REFINED)
    (run / REFINED / "darkroom.json").write_text("{}\n")
    ship(small, run, to=tmp_path / "nano", logs=tmp_path / "logs")
    assert (tmp_path / "nano" / "darkroom.json").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("limit", "said"), [("MAX_BYTES", "bytes in all"), ("MAX_FILE_BYTES", "transformer/diffusion")]
)
def test_what_is_too_large_is_not_shipped(monkeypatch, small, run, tmp_path, limit, said):
    """Neither in all nor as a file; what was there before stays."""
    monkeypatch.setattr(module, limit, 20_000)
    to = tmp_path / "nano"
    to.mkdir()
    (to / "old").touch()
    with pytest.raises(ValueError, match=said):
        ship(small, run, to=to, logs=tmp_path / "logs")
    assert [path.name for path in to.iterdir()] == ["old"]
