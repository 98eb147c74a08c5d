import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import InvalidField, LoraNotSafetensors
from darkroom.lora.address import HubFile, Link, only_file, parse_address

FIELD = "lora_2_url"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ONE = HubFile(repository="owner/name", path="a.safetensors")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("owner/name/a.safetensors", ONE),
        (" owner/name/a.safetensors\n", ONE),
        ("https://huggingface.co/owner/name/blob/main/a.safetensors", ONE),
        ("https://huggingface.co/owner/name/resolve/main/a.safetensors?download=true", ONE),
        ("http://www.huggingface.co/owner/name/raw/main/a.safetensors", ONE),
        ("huggingface.co/owner/name/resolve/main/a.safetensors", ONE),
        ("hf.co/owner/name/blob/main/a.safetensors#top", ONE),
        (
            f"https://huggingface.co/owner/name/resolve/{COMMIT}/a.safetensors",
            HubFile(repository="owner/name", path="a.safetensors", revision=COMMIT),
        ),
        (
            "https://huggingface.co/owner/name/blob/refs%2Fpr%2F1/b/a.safetensors",
            HubFile(repository="owner/name", path="b/a.safetensors", revision="refs/pr/1"),
        ),
        (
            "https://huggingface.co/dx8152/Fusion/blob/main/%E6%BA%B6%E5%9B%BE.safetensors",
            HubFile(repository="dx8152/Fusion", path="溶图.safetensors"),
        ),
        ("dx8152/Fusion/溶图.safetensors", HubFile(repository="dx8152/Fusion", path="溶图.safetensors")),
        ("o/n/deep/er/a.safetensors", HubFile(repository="o/n", path="deep/er/a.safetensors")),
        ("owner/name", HubFile(repository="owner/name", path=None)),
        ("https://hf.co/owner/name-2.0_x", HubFile(repository="owner/name-2.0_x", path=None)),
        ("hf.co/owner/name/", HubFile(repository="owner/name", path=None)),
        ("huggingface.co/owner/name/tree/v2", HubFile(repository="owner/name", path=None, revision="v2")),
        ("https://files.example/a.safetensors", Link(url="https://files.example/a.safetensors")),
        ("https://files.example/get?id=7", Link(url="https://files.example/get?id=7")),
        ("http://files.example:8080/x", Link(url="http://files.example:8080/x")),
        ("https://civitai.com/api/download/models/12", Link(url="https://civitai.com/api/download/models/12")),
        ("civitai.com/api/download/models/12", Link(url="https://civitai.com/api/download/models/12")),
        (
            "https://civitai.com/models/5/a-name?modelVersionId=12",
            Link(url="https://civitai.com/api/download/models/12"),
        ),
        ("https://huggingface.co.evil.example/owner/name", Link(url="https://huggingface.co.evil.example/owner/name")),
    ],
)
def test_addresses(text: str, address: HubFile | Link) -> None:
    """Every way to name a file is understood."""
    assert parse_address(text, field=FIELD) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("relight", "it is not a link"),
        ("a.safetensors", "it is not a link"),
        ("owner/a.safetensors", "it is not a link"),
        ("example.com/a.safetensors", "it is not a link"),
        ("example.com/b/a.safetensors", "it is not a link"),
        ("owner/na me", "it is not a link"),
        ("owner/..", "names no file"),
        ("owner/name/../../a.safetensors", "names no file"),
        ("owner/name/a.gguf", "is not a .safetensors file"),
        ("https://huggingface.co/owner/name/blob/main/README.md", "is not a .safetensors file"),
        ("https://huggingface.co/owner/name/blob/main", "no link to a file"),
        ("https://huggingface.co/owner", "no link to a file"),
        ("https://huggingface.co/", "no link to a file"),
        ("https://huggingface.co/datasets/owner/name", "no model's repository"),
        ("https://huggingface.co/owner/name/blob/a%20b/a.safetensors", "names no file"),
        ("https://civitai.com/models/5", "use its download link"),
        ("https://[bad/a.safetensors", "malformed"),
    ],
)
def test_what_is_no_address(text: str, problem: str) -> None:
    """What names no file is refused under its field, with what would do."""
    with pytest.raises(InvalidField, match=problem) as caught:
        parse_address(text, field=FIELD)
    assert caught.value.field == FIELD
    assert caught.value.message.startswith(f"{FIELD}: ")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".PTH", ".pkl", ".pickle"])
@pytest.mark.parametrize("where", ["owner/name/a", "hf.co/owner/name/blob/main/a", "https://files.example/a", "o/a"])
def test_pickles_are_refused_by_name(where: str, suffix: str) -> None:
    """No file that can run code is so much as asked for."""
    with pytest.raises(LoraNotSafetensors, match="can run code") as caught:
        parse_address(where + suffix, field=FIELD)
    assert caught.value.field == FIELD


@given(st.text(max_size=60), st.sampled_from(["", "https://huggingface.co/", "hf.co/", "https://civitai.com/", "o/n/"]))
def test_any_text(text: str, before: str) -> None:
    """Any text is an address or is refused; a link to what it names is understood as the same."""
    try:
        address = parse_address(before + text, field=FIELD)
    except (InvalidField, LoraNotSafetensors):
        return
    if isinstance(address, HubFile) and address.path:
        assert parse_address(address.link("https://huggingface.co"), field=FIELD) == address


def test_links() -> None:
    """A file's link and its repository's listing are the hub's own, whatever is in the names."""
    address = HubFile(repository="o/n", path="b/溶 图.safetensors", revision="refs/pr/1")
    assert address.link("https://hub.example/") == (
        "https://hub.example/o/n/resolve/refs%2Fpr%2F1/b/%E6%BA%B6%20%E5%9B%BE.safetensors"
    )
    assert address.listing("https://hub.example") == "https://hub.example/api/models/o/n/revision/refs%2Fpr%2F1"


def test_names() -> None:
    """What people are shown is the file's name, and nothing that a link may give away."""
    assert parse_address("o/n/b/a.safetensors", field=FIELD).name == "a.safetensors"
    assert parse_address("o/n", field=FIELD).name == "o/n"
    assert parse_address("https://files.example/x/%E6%BA%B6.safetensors?token=s", field=FIELD).name == "溶.safetensors"
    assert parse_address("https://files.example/?token=s", field=FIELD).name == "files.example"


def test_a_mirror() -> None:
    """A mirror's links are links to the hub's files."""
    for text in ("http://hub.internal:8/owner/name/blob/main/a.safetensors", "owner/name/a.safetensors"):
        assert parse_address(text, field=FIELD, hub="http://hub.internal:8") == ONE


def test_the_only_file() -> None:
    """A repository alone stands for the one file in it; otherwise those there are get listed."""
    assert only_file(["README.md", "x/a.safetensors", "b.pt"], repository="o/n", field=FIELD) == "x/a.safetensors"
    with pytest.raises(InvalidField, match=r"there is no \.safetensors file in o/n"):
        only_file(["README.md"], repository="o/n", field=FIELD)
    with pytest.raises(InvalidField, match=r"name one: o/n/a\.safetensors, o/n/b\.safetensors") as caught:
        only_file(["b.safetensors", "a.safetensors"], repository="o/n", field=FIELD)
    assert caught.value.field == FIELD
