import json

from darkroom.settings import Settings


def test_every_setting_is_listed(darkroom, monkeypatch):
    """The table has each setting, with the value in force beside its default."""
    monkeypatch.setenv("DARKROOM_PORT", "8123")
    ran = darkroom("settings")
    assert ran.code == 0
    for name in Settings.model_fields:
        assert f"DARKROOM_{name.upper()} " in ran.out
    assert next(line for line in ran.out.splitlines() if "_PORT" in line).split()[1:3] == ["8123", "8000"]


def test_json_is_for_scripts(darkroom):
    """With --json the same rows come as JSON."""
    listed = json.loads(darkroom("settings", "--json").out)
    assert [row["name"] for row in listed] == [f"DARKROOM_{name.upper()}" for name in Settings.model_fields]
    assert all(row["help"] for row in listed)


def test_a_bad_setting_is_named_beside_the_list(darkroom, monkeypatch):
    """Whoever has a bad setting still sees which there are, without values that are not in force."""
    monkeypatch.setenv("DARKROOM_PORT", "eighty")
    ran = darkroom("settings")
    assert ran.code == 2
    assert next(line for line in ran.out.splitlines() if "_RETENTION_S" in line).split()[1:3] == ["3600", "Seconds"]
    assert "'eighty'" in ran.err
    assert "`darkroom settings`" not in ran.err
    assert {row["value"] for row in json.loads(darkroom("settings", "--json").out)} == {""}
