import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.checkpoint.weights import read_index, read_weights
from darkroom.errors import BadCheckpoint

ONE = {"a": np.zeros((2, 3), np.float32)}


def test_the_only_file_may_have_any_name(tmp_path):
    """Single files are found without a config saying what they are called."""
    save_file(ONE, tmp_path / "qwen_image_edit_2509_bf16.safetensors")
    assert read_weights(tmp_path, "model")["a"].shape == (2, 3)


def test_the_published_name_goes_first(tmp_path):
    """A file beside it, such as another precision, does not matter."""
    save_file(ONE, tmp_path / "model.safetensors")
    save_file({}, tmp_path / "model.fp16.safetensors")
    assert read_weights(tmp_path, "model")["a"].file == tmp_path / "model.safetensors"


def test_of_two_files_none_is_chosen(tmp_path):
    """Which is meant can't be known, so both are named."""
    save_file(ONE, tmp_path / "one.safetensors")
    save_file(ONE, tmp_path / "two.safetensors")
    with pytest.raises(BadCheckpoint, match=r"one\.safetensors and two\.safetensors"):
        read_weights(tmp_path, "model")


@pytest.mark.parametrize("name", ["qwen-image-edit-Q4_K_M.gguf", "diffusion_pytorch_model.bin"])
def test_files_of_other_forms_are_refused_by_name(tmp_path, name):
    """GGUF is not read, and pickles never are; the error says what is."""
    (tmp_path / name).touch()
    with pytest.raises(BadCheckpoint, match=f"{name} is of a form .* safetensors"):
        read_weights(tmp_path, "model")


def test_no_file_at_all_is_said(tmp_path):
    """The error names the files that would do."""
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors nor model\.safetensors\.index\.json"):
        read_weights(tmp_path, "model")


@pytest.mark.parametrize(
    ("metadata", "total"), [({"total_size": 24}, 24), ({"total_size": 24.0}, 24), ({}, None), (None, None)]
)
def test_an_index_says_how_much_it_is_where_it_does(tmp_path, metadata, total):
    """The total is the index's own, and not guessed where it is missing."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}))
    index = read_index(path)
    assert index.total_bytes == total
    assert index.files == ("1.safetensors", "2.safetensors")


def test_an_index_of_nothing_is_refused(tmp_path):
    """An index without its map is broken, not empty."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text("{}")
    with pytest.raises(BadCheckpoint, match="weight_map"):
        read_index(path)
