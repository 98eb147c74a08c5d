from pathlib import Path

import pytest

from darkroom.catalogue import read_catalogue
from darkroom.errors import BadSetting
from darkroom.lora.presets import read_presets

DIGEST = "ab" * 32


def own(folder: Path, text: str) -> Path:
    path = folder / "presets.toml"
    path.write_text(text)
    return path


def test_every_name_that_a_card_has() -> None:
    """What `lora` can say on any model has a source; so have the two that go_fast takes."""
    named = {
        name for card in read_catalogue().values() if "lora" in card.parameters for name in card.parameters["lora"].enum
    }
    presets = read_presets(None)
    assert {*presets} == named - {"none"} | {"lightning_8_steps", "lightning_4_steps"}
    assert {name: preset.scale for name, preset in presets.items() if preset.scale != 1} == {"next_scene": 0.75}
    assert presets["next_scene"].trigger == "Next Scene:"


def test_an_operators_file(tmp_path: Path) -> None:
    """It pins, replaces and adds, key by key; what it doesn't name stays as it was."""
    ours = read_presets(None)
    theirs = read_presets(
        own(
            tmp_path,
            f"""
            [relight]
            source = "https://mirror.example/relight.safetensors"
            [eraser]
            digest = "{DIGEST}"
            scale = 0.5
            [film]
            source = "/srv/loras/film.safetensors"
            trigger = "film grain"
            """,
        )
    )
    assert [*theirs] == [*ours, "film"]
    assert theirs["relight"].source == "https://mirror.example/relight.safetensors"
    assert theirs["relight"].trigger == ours["relight"].trigger
    assert (theirs["eraser"].source, theirs["eraser"].digest, theirs["eraser"].scale) == (
        ours["eraser"].source,
        DIGEST,
        0.5,
    )
    assert (theirs["film"].trigger, theirs["film"].scale, theirs["film"].digest) == ("film grain", 1.0, None)
    assert all(theirs[name] == preset for name, preset in ours.items() if name not in ("relight", "eraser"))


def test_a_local_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin at home."""
    monkeypatch.setenv("HOME", "/home/studio")
    presets = read_presets(own(tmp_path, '[relight]\nsource = "~/a.safetensors"'))
    assert presets["relight"].source == "/home/studio/a.safetensors"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[relight", "is not TOML"),
        ('[relight]\nsorce = "o/n"', "relight.sorce: is not known"),
        ('[relight]\nsource = "nonsense"', "relight.source: .*not a link"),
        ('[relight]\nsource = "o/n/a.ckpt"', "relight.source: .*can run code"),
        ("[relight]\nscale = 5", "relight.scale: must be from -4 to 4"),
        ("[relight]\nscale = nan", "relight.scale"),
        ('[relight]\ndigest = "abc"', "relight.digest: must be a SHA-256"),
        ('[film]\ntrigger = "x"', "film.source: is missing"),
        ('[Film]\nsource = "o/n"', "Film.source: the name"),
        ('relight = "o/n"', "relight: must be a table"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str) -> None:
    """A file that is not sound stops the start, naming file and key."""
    with pytest.raises(BadSetting, match=rf"presets\.toml.*{problem}"):
        read_presets(own(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Neither does one that is missing go unnoticed."""
    with pytest.raises(BadSetting, match="can't be read"):
        read_presets(tmp_path / "none.toml")
