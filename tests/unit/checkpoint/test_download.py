import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.checkpoint.download import plan_download
from darkroom.checkpoint.layout import SMALL_FILES
from darkroom.checkpoint.published import PUBLISHED
from darkroom.errors import BadCheckpoint

CONFIGS = PUBLISHED["Qwen/Qwen-Image-Edit-2509"]
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_index(folder, metadata):
    (folder / "text_encoder").mkdir()
    index = {"metadata": metadata, "weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))


def part(download, name):
    return next(part for part in download.parts if part.name == name)


def test_of_nothing_here_the_published_sizes_are_known(tmp_path):
    """53.7 GiB of bfloat16, of which the head is fetched but not kept; no file is named, since nothing names them."""
    download = plan_download(tmp_path, CONFIGS)
    assert download.missing_bytes == 40_860_802_176 + 16_584_333_312 + 253_785_062
    assert download.parameters == 20_430_401_088 + 8_292_166_656 - 152064 * 3584 + 126_892_531
    assert {part.missing for part in download.parts} == {None}
    assert download.small_files == SMALL_FILES


def test_an_index_names_the_files_and_their_size(tmp_path):
    """What lies here already is not fetched again; the size of the rest is the index's total without it."""
    write_index(tmp_path, {"total_size": 5000})
    save_file({"a": np.zeros(100, np.float32)}, tmp_path / "text_encoder" / SHARDS[0])
    found = part(plan_download(tmp_path, CONFIGS), "text_encoder")
    assert (found.here, found.missing) == (SHARDS[:1], SHARDS[1:])
    assert found.missing_bytes == 5000 - (tmp_path / "text_encoder" / SHARDS[0]).stat().st_size


def test_an_index_without_a_total_leaves_the_config_to_tell(tmp_path):
    """Then two bytes a parameter are reckoned, as published."""
    write_index(tmp_path, {})
    assert part(plan_download(tmp_path, CONFIGS), "text_encoder").missing_bytes == 16_584_333_312


def test_configs_that_are_here_count_before_the_published_ones(tmp_path):
    """A checkpoint of other widths is weighed by its own."""
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({**CONFIGS["transformer"], "num_layers": 30}))
    halved = part(plan_download(tmp_path, CONFIGS), "transformer").parameters
    assert 20_430_401_088 / 2 < halved < 20_430_401_088 / 1.98
    assert "transformer/config.json" not in plan_download(tmp_path, CONFIGS).small_files


def test_a_checkpoint_that_is_not_known_needs_its_configs(tmp_path):
    """The error names the first one missing, and what brings it without the weights."""
    with pytest.raises(BadCheckpoint, match=r"transformer/config\.json is missing; `hf download .*json"):
        plan_download(tmp_path, {})


def test_of_a_whole_checkpoint_nothing_is_to_be_fetched(tiny_checkpoint):
    """Shards and single files alike are found where they lie."""
    download = plan_download(tiny_checkpoint, {})
    assert not download
    assert download.missing_bytes == 0
    assert [len(part.here) for part in download.parts] == [2, 2, 1]


@pytest.mark.parametrize("file", ["tokenizer/merges.txt", "vae/diffusion_pytorch_model.safetensors"])
def test_a_single_file_missing_makes_it_incomplete(tiny_checkpoint, tmp_path, file):
    """Small files count as much as weights."""
    for path in tiny_checkpoint.rglob("*"):
        name = path.relative_to(tiny_checkpoint)
        if path.is_file() and str(name) != file:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to(path)
    assert plan_download(tmp_path, {})
