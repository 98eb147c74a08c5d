import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.checkpoint.inspect import inspect


def test_a_whole_checkpoint_has_no_problems(tiny_checkpoint):
    """The report has every part's counts, which add up."""
    report = inspect(tiny_checkpoint)
    assert report.problems == ()
    assert [part.name for part in report.parts] == ["transformer", "text_encoder", "vae"]
    assert all(part.dtypes == {"BF16": part.parameters} for part in report.parts)
    assert report.size_bytes == 2 * report.parameters
    assert report.declared is not None


def test_all_problems_are_told_at_once(tiny_checkpoint, tmp_path):
    """One look finds a broken part, a part that does not fit, and a missing tokenizer."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (folder / "text_encoder" / "config.json").write_text("{")
    (folder / "tokenizer" / "vocab.json").unlink()
    (folder / "darkroom.json").write_text('{"area": 1}')
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(vae)
    tensors["left.over"] = tensors.pop("quant_conv.bias")
    save_file(tensors, vae)
    report = inspect(folder)
    assert [part.name for part in report.parts] == ["transformer", "vae"]
    assert report.declared is None
    told = "\n".join(report.problems)
    for named in ("text_encoder/config.json", "vocab.json", "'area'", "quant_conv.bias is missing", "left.over"):
        assert named in told


def test_a_form_that_is_not_read_is_a_problem(tiny_checkpoint, tmp_path):
    """It is told before anything is loaded, with the remedy."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(vae), "quant_conv.weight": torch.ones(32, 32, dtype=torch.int8)}, vae)
    (problem,) = inspect(folder).problems
    assert "quant_conv.weight is stored as I8, which is not read; use the model's files in bfloat16" in problem


@pytest.mark.parametrize("index", [None, "{}", json.dumps({"_class_name": "FluxPipeline"})])
def test_a_folder_that_is_no_checkpoint_is_reported(tmp_path, index):
    """An empty folder or another model's is a problem told, not an exception."""
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    report = inspect(tmp_path)
    assert report.parts == ()
    assert "model_index.json" in report.problems[0]


def test_looking_needs_no_torch():
    """The command line and the service read layouts in processes that never import torch."""
    code = "import sys, darkroom.checkpoint.inspect, darkroom.checkpoint.locate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
