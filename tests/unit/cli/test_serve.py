"""What `darkroom serve` refuses before it listens; what it does then has its tests among the real processes."""

import pytest

from darkroom.cli.serve import check_place
from darkroom.errors import BadCheckpoint


@pytest.mark.parametrize("checkpoint", ["/nowhere", "./nowhere", "../nowhere", "~/nowhere", "nowhere", "a/b/c"])
def test_a_path_that_leads_nowhere(darkroom, checkpoint):
    """No worker would ever find a model there."""
    ran = darkroom("serve", "--checkpoint", checkpoint, "--port", 0)
    assert (ran.code, ran.out) == (2, "")
    assert f"checkpoint {checkpoint!r}: there is no such folder" in ran.err
    assert ran.err.count("\n") == 1


def test_a_place_that_may_have_one(tmp_path):
    """A folder that is there, and an id that may still be fetched; a file is none."""
    check_place(str(tmp_path))
    check_place("someone/model")
    (tmp_path / "file").touch()
    with pytest.raises(BadCheckpoint, match="is a file"):
        check_place(str(tmp_path / "file"))


@pytest.mark.parametrize("command", ["serve", "edit"])
def test_a_data_folder_that_nobody_can_write_to(darkroom, monkeypatch, tmp_path, tiny_checkpoint, command):
    """It is there, so making it succeeds; that nothing can be put into it is found at once."""
    monkeypatch.setenv("DARKROOM_DATA", "/proc")
    monkeypatch.setenv("DARKROOM_CHECKPOINT", str(tiny_checkpoint))
    (tmp_path / "photo.png").touch()
    words = ("photo.png", "-p", "x", "-o", "out.png") if command == "edit" else ()
    ran = darkroom(command, *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("darkroom: DARKROOM_DATA = '/proc': can't be written to: ")
    assert ran.err.count("\n") == 1
