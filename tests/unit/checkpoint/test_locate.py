import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from darkroom.checkpoint.locate import NANO, known_as, locate
from darkroom.errors import BadCheckpoint


def test_a_folder_is_its_own_place(tmp_path):
    """A folder needs no looking up."""
    assert locate(str(tmp_path)) == tmp_path


def test_a_file_is_refused(tmp_path):
    """A checkpoint is a folder, and the refusal says which."""
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BadCheckpoint, match=r"model_index\.json"):
        locate(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "/no/where", "a/b/c", "owner/"])
def test_a_name_that_is_neither_folder_nor_id_is_refused_with_the_remedy(name, tmp_path, monkeypatch):
    """What can't be a Hugging Face id is never looked up on the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(BadCheckpoint, match="darkroom checkpoints make"):
        locate(name)


def test_a_hugging_face_id_is_fetched_without_what_is_not_needed(tmp_path, monkeypatch):
    """Weights are taken as safetensors only, and nothing that could run code."""
    asked = {}

    def fetched(name, *, allow_patterns):
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert locate("Qwen/Qwen-Image-Edit-2509") == tmp_path
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["Qwen/Qwen-Image-Edit-2509"])


def answer(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.test/"))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (GatedRepoError("gated", response=answer(403)), "accept its terms"),
        (RepositoryNotFoundError("none", response=answer(404)), "check the name"),
        (LocalEntryNotFoundError("offline"), "check the network"),
        (HfHubHTTPError("down", response=answer(503)), "can't be fetched"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_a_failed_fetch_says_what_to_do(error, remedy, monkeypatch):
    """Each way in which fetching fails has its own remedy."""

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    with pytest.raises(BadCheckpoint, match=remedy):
        locate("owner/name")


def test_a_checkpoint_has_one_name(tmp_path, monkeypatch):
    """Whatever path leads to its folder; nano's, wherever the package is; and a Hugging Face id as it is."""
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    named = {known_as(name) for name in ("model", "./link", "~/model", str(tmp_path / "model"))}
    assert named == {str((tmp_path / "model").resolve())}
    assert known_as(str(NANO)) == "nano"
    assert known_as("Qwen/Qwen-Image-Edit-2509") == "Qwen/Qwen-Image-Edit-2509"
