import hashlib
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from darkroom.checkpoint.inspect import inspect
from darkroom.engine import tiny
from darkroom.engine.tiny import make_tiny
from darkroom.errors import BadSetting


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tiny_checkpoint, tmp_path):
    """Made again in another process, every file is the same; with another seed, all weights and only they differ."""
    subprocess.run([sys.executable, "-m", "darkroom.engine.tiny", str(tmp_path / "again")], check=True)
    make_tiny(tmp_path / "other", seed=1)
    first, again, other = map(digests, (tiny_checkpoint, tmp_path / "again", tmp_path / "other"))
    assert again == first
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {name for name in first if name.endswith(".safetensors")}


def test_it_is_small_and_whole(tiny_checkpoint):
    """A few megabytes, in the published layout, readable by everyone."""
    assert inspect(tiny_checkpoint).problems == ()
    files = [path for path in tiny_checkpoint.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6 * 2**20
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_the_reference_libraries_load_it(tiny_checkpoint):
    """Diffusers and transformers find every tensor they need, and none too many."""
    for loader, part in ((QwenImageTransformer2DModel, "transformer"), (AutoencoderKLQwenImage, "vae")):
        _, told = loader.from_pretrained(tiny_checkpoint / part, output_loading_info=True)
        assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    text, told = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        tiny_checkpoint / "text_encoder", output_loading_info=True
    )
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert text.dtype == torch.bfloat16
    FlowMatchEulerDiscreteScheduler.from_pretrained(tiny_checkpoint / "scheduler")
    tokenizer = Qwen2Tokenizer.from_pretrained(tiny_checkpoint / "tokenizer")
    assert tokenizer.decode(tokenizer("Turn the cup red, 把天空🙂")["input_ids"]) == "Turn the cup red, 把天空🙂"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    """Neither a file nor a filled folder is written over; an empty folder will do."""
    (tmp_path / "mine").write_text("mine")
    for name in (tmp_path, tmp_path / "mine"):
        with pytest.raises(BadSetting, match="not empty"):
            make_tiny(name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    make_tiny(tmp_path / "empty")
    assert inspect(tmp_path / "empty").problems == ()


def test_a_checkpoint_half_made_is_not_there(tmp_path, monkeypatch):
    """A fault on the way leaves no folder that could be taken for a checkpoint, and no rubbish."""
    monkeypatch.setattr(tiny, "_vae_weights", lambda *_: {}[0])
    with pytest.raises(KeyError):
        make_tiny(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_what_is_wrong(tmp_path, capsys):
    """`python -m darkroom.engine.tiny` exits 1 with the reason on a filled folder."""
    (tmp_path / "mine").touch()
    assert tiny.main([str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
