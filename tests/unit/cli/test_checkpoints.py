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
