import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.checkpoint.locate import NANO
from darkroom.cli import default
from hosts import FileHost, digest_of, file_host, lora_file

FIRST = lora_file(seed=1)
DIGEST = digest_of(FIRST)


@pytest.fixture(autouse=True)
def _no_model_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that any sound file will do."""
    monkeypatch.setenv("DARKROOM_CHECKPOINT", "/nowhere")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    with file_host() as server:
        monkeypatch.setenv("DARKROOM_FETCH_ALLOW", f"{server.address},{server.hub_address}")
        monkeypatch.setenv("DARKROOM_HUB_URL", server.hub)
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(FIRST)
    return path


def listed(darkroom, name: str | None) -> dict[str, object]:
    (found,) = (one for one in json.loads(darkroom("loras", "list", "--json").out) if one["name"] == name)
    return found


def test_list(darkroom, path):
    """A row for each preset, and for what was added; the digest's beginning is enough to name it by."""
    darkroom("loras", "add", "film", path, "--scale", "0.8", "--trigger", "film grain")
    head, *rows = darkroom("loras", "list").out.splitlines()
    assert head.split() == ["name", "trigger", "scale", "installed", "digest", "size", "pinned", "from"]
    assert rows[0].startswith("multiple_angle")
    assert rows[-1].split() == [
        "film", "film", "grain", "0.8", "yes", DIGEST[:12], "4.4", "KiB", "yes", str(path),
    ]  # fmt: skip


def test_add_prints_the_digest_alone(darkroom, path):
    """Standard output is for scripts."""
    ran = darkroom("loras", "add", "film", path)
    assert (ran.code, ran.out) == (0, f"{DIGEST}\n")
    assert "film" in ran.err


def test_fetch(darkroom, host):
    """Presets by name, and any address."""
    host.put_on_hub(
        "starsfriday/Qwen-Image-Edit-Remover-General-LoRA", "qwen-edit-remover.safetensors", FIRST, commit="a" * 40
    )
    second = lora_file(seed=2)
    url = host.put("b.safetensors", second)
    ran = darkroom("loras", "fetch", "eraser", url)
    assert (ran.code, ran.out) == (0, f"{DIGEST} eraser\n{digest_of(second)} {url}\n")
    assert listed(darkroom, "eraser")["installed"]
    assert listed(darkroom, None)["digest"] == digest_of(second)


def test_fetch_all_presets(darkroom, host, tmp_path, monkeypatch):
    """Those that are not installed yet, and no others; what can't be had is told at the end, by its name."""
    (tmp_path / "presets.toml").write_text(
        "".join(
            f'[{name}]\nsource = "{host.put(name, lora_file(seed=number))}"\n'
            for number, name in enumerate(one["name"] for one in json.loads(darkroom("loras", "list", "--json").out))
        )
    )
    monkeypatch.setenv("DARKROOM_LORA_PRESETS", str(tmp_path / "presets.toml"))
    assert len(darkroom("loras", "fetch", "--presets").out.splitlines()) == 15
    assert all(one["installed"] for one in json.loads(darkroom("loras", "list", "--json").out))
    host.files.clear()
    assert darkroom("loras", "fetch", "--presets") == (0, "", "")
    for name in ("multiple_angle", "relight", "eraser"):
        darkroom("loras", "remove", name)
    host.put("relight", FIRST)
    ran = darkroom("loras", "fetch", "--presets")
    assert (ran.code, ran.out) == (1, f"{DIGEST} relight\n")
    first, second = ran.err.splitlines()
    assert first.startswith("darkroom: multiple_angle: ")
    assert second.startswith("darkroom: eraser: ")
    assert "no such file" in first


def test_pin_and_remove(darkroom, host):
    """By the beginning of a digest."""
    darkroom("loras", "fetch", host.put("a.safetensors", FIRST))
    assert darkroom("loras", "pin", DIGEST[:8]).out == f"{DIGEST}\n"
    assert listed(darkroom, None)["pinned"]
    assert darkroom("loras", "pin", DIGEST[:8], "--off").out == f"{DIGEST}\n"
    assert not listed(darkroom, None)["pinned"]
    assert darkroom("loras", "remove", DIGEST[:8]).out == f"{DIGEST}\n"
    assert len(json.loads(darkroom("loras", "list", "--json").out)) == 15


def test_inspect(darkroom, host, path):
    """Layout, ranks and what of the model it changes, the same of a file and of an address."""
    data = lora_file(side=3072)
    path.write_bytes(data)
    ran = darkroom("loras", "inspect", path)
    assert ran.code == 0
    rows = {"layout": "bare", "ranks": "4", "stored as": "4 F32", "scale": "1", "size": "4 tensors"}
    for name, value in rows.items():
        assert any(line.startswith(name) and value in line for line in ran.out.splitlines()), name
    assert ran.out.splitlines()[-1].split() == ["attn.to_q", "2", "60"]
    remote = darkroom("loras", "inspect", host.put("a.safetensors", data))
    # What the tensors are multiplied by stands among them, and those are not read.
    assert remote.out.replace("scale      –", "scale      1") == ran.out


def test_inspect_what_will_not_do(darkroom, path):
    """A LoRA of another model shows what it holds, and exits 2 with why it would be refused."""
    ran = darkroom("loras", "inspect", path)
    assert ran.code == 2
    assert "4 F32" in ran.out
    assert "this LoRA can't be used" in ran.err
    assert "transformer_blocks.0.attn.to_q" in ran.err


def test_inspect_takes_the_checkpoint_that_would_be_served(darkroom, monkeypatch):
    """With none named that is the small one, whose own LoRAs fit it."""
    monkeypatch.delenv("DARKROOM_CHECKPOINT")
    monkeypatch.setattr(default, "find_cached", lambda name: None)
    ran = darkroom("loras", "inspect", "relight")
    assert (ran.code, ran.err) == (0, "")
    assert "changes 30 modules" in ran.out


def test_list_needs_nothing_but_to_read(darkroom, monkeypatch, tmp_path):
    """The digests of the checkpoint's own LoRAs are noted where that can be done; here a file is in the way."""
    monkeypatch.setenv("DARKROOM_CHECKPOINT", str(NANO))
    (tmp_path / "data" / "loras" / "index").mkdir(parents=True)
    (tmp_path / "data" / "loras" / "index" / "addresses").touch()
    assert listed(darkroom, "relight")["installed"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch",), "--presets"),
        (("fetch", "relihgt"), "there is no preset 'relihgt'"),
        (("add", "Film", "a.safetensors"), "lower-case"),
        (("add", "film", "./none.safetensors"), "no such file"),
        (("add", "film", "a.ckpt"), "can run code"),
        (("pin", "none"), "darkroom loras list"),
        (("remove", "none"), "darkroom loras list"),
        (("inspect", "nonsense"), "not a link"),
        (("inspect", "folder"), "folder is a folder; name a .safetensors file in it"),
        (("inspect", "text.md"), "text.md: "),
        (("inspect", "https://127.0.0.1/a"), "not public"),
    ],
)
def test_mistakes_are_said(darkroom, tmp_path, words, said):
    """What can't be done exits without a result, and says what would do."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.md").write_text("# No LoRA")
    ran = darkroom("loras", *words)
    assert ran.code in (1, 2)
    assert ran.out == ""
    assert said in ran.err
    assert "Traceback" not in ran.err
