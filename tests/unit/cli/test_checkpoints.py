import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest

from darkroom.checkpoint.published import PUBLISHED


def test_make_leaves_a_full_folder_alone(darkroom, tmp_path):
    """What lies in a folder already is never overwritten."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    ran = darkroom("checkpoints", "make", "--size", "tiny", "full")
    assert (ran.code, ran.out) == (2, "")
    assert "full exists already" in ran.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_make_knows_its_sizes(darkroom):
    """An unknown size is refused with the known ones."""
    ran = darkroom("checkpoints", "make", "--size", "huge", "x")
    assert ran.code == 2
    assert "tiny" in ran.err


def test_inspect_names_all_that_is_missing(darkroom, tmp_path):
    """A folder that is no checkpoint is told as such, with every file that it lacks."""
    (tmp_path / "empty").mkdir()
    ran = darkroom("checkpoints", "inspect", "empty")
    assert ran.code == 2
    for file in ("model_index.json", "scheduler_config.json", "tokenizer"):
        assert file in ran.err


def test_inspect_downloads_nothing(darkroom):
    """An id whose files are not here is said to be that, with what brings them."""
    ran = darkroom("checkpoints", "inspect", "nobody-at-all/no-such-checkpoint")
    assert (ran.code, ran.out) == (2, "")
    assert "hf download nobody-at-all/no-such-checkpoint" in ran.err


ID = "Qwen/Qwen-Image-Edit-2509"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hugging Face cache of the test's own, empty at first."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, name, files):
    """Files into the cache, as a download of `name` leaves them; returns their folder."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("f00d")
    folder = repository / "snapshots" / "f00d"
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    return folder


def configs_and_indices():
    """All that tells of a checkpoint without its weights."""
    files = {f"{part}/config.json": dict(config) for part, config in PUBLISHED[ID].items()}
    shards = [f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    index = {"metadata": {"total_size": 40860802176}, "weight_map": {"img_in.weight": shards[0], "x": shards[1]}}
    files["transformer/diffusion_pytorch_model.safetensors.index.json"] = index
    return files


def test_inspect_knows_what_was_published_before_anything_is_here(darkroom, cache):
    """With an empty cache and no network: what a download is, and what it takes in memory by dtype."""
    ran = darkroom("checkpoints", "inspect", ID)
    assert (ran.code, ran.err) == (0, "")
    assert "Nothing of Qwen/Qwen-Image-Edit-2509 is in the Hugging Face cache yet" in ran.out
    assert "to download: 53.7 GiB of weights, and small files: model_index.json" in ran.out
    assert "52.7 GiB in bfloat16, 105.4 GiB in float32" in ran.out


def test_inspect_says_of_a_cached_index_what_is_still_to_come(darkroom, cache):
    """Which shards are missing and how large they are, from the index alone."""
    folder = put(cache, ID, configs_and_indices())
    ran = darkroom("checkpoints", "inspect", ID)
    assert (ran.code, ran.err) == (0, "")
    assert str(folder) in ran.out
    row = next(line for line in ran.out.splitlines() if line.startswith("transformer"))
    assert row.split()[:7] == ["transformer", "0", "38.1", "GiB", "20,430,401,088", "38.1", "GiB"]
    assert "diffusion_pytorch_model-00001-of-00002.safetensors, diffusion_pytorch_model-00002" in ran.out
    assert "tokenizer/vocab.json" in ran.out
    assert "transformer/config.json" not in ran.out


def test_inspect_takes_other_checkpoints_by_their_own_configs(darkroom, cache):
    """An id that nothing is known of is weighed by what is in the cache, or told what to fetch first."""
    files = configs_and_indices()
    put(cache, "someone/finetune", files)
    ran = darkroom("checkpoints", "inspect", "someone/finetune")
    assert ran.code == 0
    assert "20,430,401,088" in ran.out
    del files["vae/config.json"]
    put(cache, "someone/other", files)
    ran = darkroom("checkpoints", "inspect", "someone/other")
    assert ran.code == 2
    assert "vae/config.json is missing; `hf download" in ran.err


def test_inspect_of_a_whole_download_is_that_of_its_folder(darkroom, cache, tiny_checkpoint):
    """Once everything is here, headers are read and memory is told for what they hold."""
    shutil.copytree(tiny_checkpoint, put(cache, "someone/tiny", {}))
    ran = darkroom("checkpoints", "inspect", "someone/tiny")
    assert (ran.code, ran.err) == (0, "")
    assert "BF16 100%" in ran.out
    assert "in bfloat16" in ran.out
    assert "as 2509 does" in ran.out


@pytest.mark.parametrize(("variable", "folder"), [("HF_HOME", "."), ("HF_HUB_CACHE", "hub")])
def test_inspect_looks_where_hugging_face_is_told_to(tmp_path, variable, folder):
    """Both of its variables are honoured, and no call leaves the machine."""
    put(tmp_path / "hub", ID, configs_and_indices())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {variable: str(tmp_path / folder), "HF_ENDPOINT": "http://127.0.0.1:9"}
    code = (
        f"import sys; sys.argv = ['darkroom', 'checkpoints', 'inspect', '{ID}']; import darkroom.cli.app as a; a.main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout.startswith(str(tmp_path / "hub"))
