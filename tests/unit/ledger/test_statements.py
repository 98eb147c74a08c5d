"""SQL read from .sql files."""

import pytest

from darkroom.ledger.statements import read_migrations, read_queries


def test_queries_are_read_by_name(tmp_path):
    """Every `-- name:` block of every file is a query, comments and all; migrations are not."""
    (tmp_path / "a.sql").write_text("-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2;\n")
    (tmp_path / "b.sql").write_text("-- name: three\nSELECT 3;\n")
    (tmp_path / "001_start.sql").write_text("CREATE TABLE a (n);\n")
    (tmp_path / "notes.txt").write_text("-- name: four\n")
    assert read_queries(tmp_path) == {"one": "SELECT 1;", "two": "-- why\nSELECT 2;", "three": "SELECT 3;"}


def test_a_name_is_used_once(tmp_path):
    """Two queries of one name are refused, not one of them taken."""
    (tmp_path / "a.sql").write_text("-- name: one\nSELECT 1;\n")
    (tmp_path / "b.sql").write_text("-- name: one\nSELECT 2;\n")
    with pytest.raises(ValueError, match="two queries named one"):
        read_queries(tmp_path)


def test_migrations_come_in_order(tmp_path):
    """Migrations are the numbered files, by number."""
    (tmp_path / "002_more.sql").write_text("second")
    (tmp_path / "001_start.sql").write_text("first")
    (tmp_path / "jobs.sql").write_text("-- name: one\nSELECT 1;\n")
    assert read_migrations(tmp_path) == ["first", "second"]


@pytest.mark.parametrize("names", [["002_a.sql"], ["001_a.sql", "001_b.sql"], ["001_a.sql", "003_b.sql"]])
def test_a_gap_in_the_numbers_is_refused(tmp_path, names):
    """A number that is missing or there twice is an error."""
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="numbered"):
        read_migrations(tmp_path)
