import json
import os
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom.errors import BadSetting
from darkroom.settings import WORDS, Row, Settings, read_settings, rows

SCRIPT = Path(__file__).parents[2] / "scripts" / "settings_page.py"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without settings, and a working folder without a file."""
    for name in os.environ:
        if name.upper().startswith("DARKROOM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults(bare: Path) -> None:
    """With nothing given every setting has its default, and nothing is read but the environment and the file."""
    settings = read_settings()
    assert settings == Settings()
    assert (settings.host, settings.port, settings.dtype, settings.checkpoint) == ("127.0.0.1", 8000, "auto", None)
    assert settings.data.is_absolute()
    assert settings.model_fields_set == set()
    assert not list(bare.iterdir())


@pytest.mark.parametrize("row", rows(None), ids=lambda row: row.name)
def test_a_default_can_be_set(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    """Every setting takes from its variable what is listed as its default."""
    if row.default not in ("unset", "none"):
        monkeypatch.setenv(row.name, row.default)
        assert row.default in {each.value for each in rows(read_settings()) if each.name == row.name}


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of setting is read from its variable; an empty one counts as not given."""
    for name, value in {
        "DATA": "~/pictures",
        "CHECKPOINT": "Qwen/Qwen-Image-Edit-2509",
        "DTYPE": "float32",
        "DEVICE": "cuda:1",
        "PORT": "0",
        "PUBLIC_URL": "https://images.example.com/api",
        "RETENTION_S": "0.5",
        "TRUSTED_PROXIES": "10.0.0.7, fd00::/8",
        "RESULT_METADATA": "false",
        "FETCH_ALLOW": " 127.0.0.1:9000, 10.0.0.0/8 ,",
        "HOST": "",
    }.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    settings = read_settings()
    assert settings.data == Path.home() / "pictures"
    assert (settings.checkpoint, settings.dtype, settings.device) == ("Qwen/Qwen-Image-Edit-2509", "float32", "cuda:1")
    assert (settings.port, settings.public_url) == (0, "https://images.example.com/api")
    assert settings.retention_s == 0.5
    assert settings.fetch_allow == ("127.0.0.1:9000", "10.0.0.0/8")
    assert settings.trusted_proxies == ("10.0.0.7", "fd00::/8")
    assert settings.result_metadata is False
    assert settings.host == "127.0.0.1"


def test_precedence(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over a variable, that over the file, that over the default; a flag of None is none."""
    (bare / "darkroom.toml").write_text('host = "file"\nport = 1\nlease_s = 7\nfetch_allow = ["files.example:1"]\n')
    monkeypatch.setenv("DARKROOM_HOST", "variable")
    monkeypatch.setenv("DARKROOM_PORT", "2")
    settings = read_settings(port=3, host=None, drain_s=None)
    assert (settings.port, settings.host, settings.lease_s, settings.drain_s) == (3, "variable", 7, 30)
    assert settings.fetch_allow == ("files.example:1",)
    assert settings.model_fields_set == {"port", "host", "lease_s", "fetch_allow"}


def test_named_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that DARKROOM_CONFIG names is read in place of darkroom.toml; one that is not there stops the start."""
    (bare / "darkroom.toml").write_text("port = 1\n")
    (bare / "other.toml").write_text("lease_s = 9\n")
    monkeypatch.setenv("DARKROOM_CONFIG", "other.toml")
    assert (read_settings().port, read_settings().lease_s) == (8000, 9)
    monkeypatch.setenv("DARKROOM_CONFIG", "gone.toml")
    with pytest.raises(BadSetting, match=r"DARKROOM_CONFIG = 'gone\.toml': there is no such file"):
        read_settings()


@pytest.mark.parametrize("content", [b'port = "8', b"port = 8000 9", b"\xff\xfe"])
def test_broken_file(bare: Path, content: bytes) -> None:
    """A file that is not TOML stops the start and is named."""
    (bare / "darkroom.toml").write_bytes(content)
    with pytest.raises(BadSetting, match=r"darkroom\.toml is not TOML"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("DTYPE", "half"),
        ("DEVICE", "cuda:"),
        ("DEVICE", "gpu"),
        ("PUBLIC_URL", "images.example.com"),
        ("PUBLIC_URL", "ftp://images.example.com"),
        ("PUBLIC_URL", "https://images.example.com/?a=b"),
        ("RETENTION_S", "0"),
        ("RETENTION_S", "nan"),
        ("LEASE_S", "inf"),
        ("DRAIN_S", "-1"),
        ("MAX_BODY_BYTES", "64MB"),
        ("LOG_FORMAT", "xml"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "proxy.internal"),
        ("RESULT_METADATA", "maybe"),
    ],
)
def test_bad_values(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A bad value stops the start; the message names key and value and where to look."""
    monkeypatch.setenv(f"DARKROOM_{name}", value)
    with pytest.raises(BadSetting, match=re.escape(f"DARKROOM_{name} = {value!r}: ")) as caught:
        read_settings()
    assert "`darkroom settings`" in caught.value.message


def test_several_bad_values_at_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is wrong is said in one go, wherever it was given; a key of the file's that is none with the nearest."""
    (bare / "darkroom.toml").write_text('dtype = "half"\nchekpoint = "x"\n')
    monkeypatch.setenv("DARKROOM_PORT", "x")
    with pytest.raises(BadSetting) as caught:
        read_settings(lease_s=-1)
    unknown = "darkroom.toml: there is no setting 'chekpoint'; the nearest is checkpoint"
    for part in (unknown, "DARKROOM_DTYPE = 'half'", "DARKROOM_PORT = 'x'", "DARKROOM_LEASE_S = -1"):
        assert part in caught.value.message


@pytest.mark.parametrize("key", ["prot", "DARKROOM_PORT"])
def test_an_unknown_key_of_the_file(bare: Path, key: str) -> None:
    """It is said to be the file's, since no such variable was set, with the nearest name there is."""
    (bare / "darkroom.toml").write_text(f"{key} = 8000\n")
    with pytest.raises(BadSetting) as caught:
        read_settings()
    assert f"darkroom.toml: there is no setting {key!r}; the nearest is port " in caught.value.message
    assert "DARKROOM_PROT" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("device", "'x': must be auto, cpu, cuda or cuda:N"),
        ("public_url", "'x': must be an http(s) address"),
        ("hub_url", "'x': must be an http(s) address"),
    ],
)
def test_patterns_are_said_in_words(name: str, said: str) -> None:
    """What a value must be like is said to people, not as a regular expression."""
    with pytest.raises(BadSetting) as caught:
        read_settings(**{name: "x"})
    assert said in caught.value.message
    assert "^" not in caught.value.message


def test_every_pattern_has_its_words() -> None:
    """None is left to be said as a regular expression."""
    patterned = {name for name, field in Settings.model_fields.items() if "pattern=" in repr(field.metadata)}
    assert patterned == WORDS.keys()


@pytest.mark.parametrize("name", ["DARKROOM_CHEKPOINT", "darkroom_chekpoint", "DARKROOM_"])
def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable that is no setting, a misspelt one say, stops the start and is named."""
    monkeypatch.setenv(name, "x")
    with pytest.raises(BadSetting, match=f"unknown setting {name} "):
        read_settings()


@pytest.mark.parametrize(
    "value", ["127.0.0.1:9000", "[::1]:9000", "minio.internal:9000", "10.0.0.0/8", "fd00::/8", "10.1.2.3", "fd00::80"]
)
def test_fetch_allow(value: str) -> None:
    """Hosts by port (IPv6 in brackets) and networks are taken, as one text or as a list."""
    assert read_settings(fetch_allow=value).fetch_allow == (value,)
    assert read_settings(fetch_allow=[value, value]).fetch_allow == (value, value)


@pytest.mark.parametrize("value", ["minio.internal", "minio.internal:0", "10.0.0.1/8", "http://minio:9000", "a:1,b"])
def test_bad_fetch_allow(value: str) -> None:
    """An entry that would let nothing through as written stops the start: it is a mistake."""
    with pytest.raises(BadSetting, match=r"DARKROOM_FETCH_ALLOW = .*(neither host:port nor CIDR|names no port)"):
        read_settings(fetch_allow=value)


def test_tokens_are_not_shown() -> None:
    """A token reaches a worker, and neither a list of settings, a log nor a message of what is wrong."""
    settings = read_settings(lora_tokens="huggingface.co=hf_secret, civitai.com=abc=d")
    assert settings.lora_tokens == ("huggingface.co=hf_secret", "civitai.com=abc=d")
    assert Settings(**json.loads(json.dumps(settings.model_dump(mode="json")))) == settings
    (row,) = (row for row in rows(settings) if row.name == "DARKROOM_LORA_TOKENS")
    assert (row.value, row.default) == ("set", "none")
    assert "hf_secret" not in repr(settings)
    for bad in ("hf_secret", "huggingface.co hf_secret", "https://huggingface.co=hf_secret"):
        with pytest.raises(BadSetting, match=r"DARKROOM_LORA_TOKENS: .*host=token") as caught:
            read_settings(lora_tokens=bad)
        assert "hf_secret" not in caught.value.message


def test_frozen() -> None:
    """Nothing changes a setting once it is read."""
    with pytest.raises(ValidationError, match="frozen"):
        read_settings().port = 1  # type: ignore[misc]


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "data": st.just("/srv/pictures"),
            "checkpoint": st.none() | st.text(min_size=1, max_size=9),
            "port": st.integers(0, 65535),
            "public_url": st.none() | st.just("https://images.example.com"),
            "retention_s": st.floats(0.001, 1e9),
            "fetch_allow": st.lists(st.sampled_from(["a:1", "10.0.0.0/8", "[::1]:2"]), max_size=3),
            "log_format": st.sampled_from(["console", "json"]),
        },
    )
)
def test_travels_to_a_worker(changes: dict[str, Any]) -> None:
    """The tree survives JSON unchanged, whatever the worker's own environment and folder say."""
    settings = read_settings(**changes)
    line = json.dumps(settings.model_dump(mode="json"))
    with pytest.MonkeyPatch.context() as elsewhere:
        for name, value in {"PORT": "no number", "CHECKPOINT": "other", "FETCH_ALLOW": "c:3", "DATA": "/other"}.items():
            elsewhere.setenv(f"DARKROOM_{name}", value)
        assert Settings(**json.loads(line)) == settings


def test_every_setting_is_helped() -> None:
    """Each setting has a row with its name, its value in force, its default and a sentence of help."""
    listed = {row.name: row for row in rows(read_settings(port=9, fetch_allow="a:1,b:2"))}
    assert list(listed) == [f"DARKROOM_{name.upper()}" for name in Settings.model_fields]
    assert all(row.help.endswith(".") and row.default for row in listed.values())
    assert (listed["DARKROOM_PORT"].value, listed["DARKROOM_PORT"].default) == ("9", "8000")
    assert (listed["DARKROOM_FETCH_ALLOW"].value, listed["DARKROOM_FETCH_ALLOW"].default) == ("a:1,b:2", "none")
    assert listed["DARKROOM_DTYPE"].help.endswith(" One of: auto, bfloat16, float32.")
    assert listed["DARKROOM_FAST_STEPS"].help.endswith(" One of: 4, 8.")
    assert (listed["DARKROOM_CHECKPOINT"].value, listed["DARKROOM_RETENTION_S"].value) == ("unset", "3600")


def test_the_page_is_true() -> None:
    """docs/settings.md says what the code says, on any machine, and its example file is one that is taken."""
    script = runpy.run_path(str(SCRIPT))
    page = script["page"]()
    assert script["PAGE"].read_text(encoding="utf-8") == page, "run scripts/settings_page.py"
    assert str(Path.home()) not in page
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example
    Path("darkroom.toml").write_text(example[1])
    assert read_settings().model_fields_set == set(tomllib.loads(example[1]))
