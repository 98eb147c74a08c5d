"""SQL from .sql files: numbered migrations, and queries under their names.

A folder holds one database's dialect. `001_ledger.sql`, `002_….sql` are its migrations; every other file holds queries,
each headed `-- name: …`.
"""

import re
from importlib.resources.abc import Traversable

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_NUMBERED = re.compile(r"(\d{3})_\w+\.sql")


def read_migrations(folder: Traversable) -> list[str]:
    """In order; the first is number 1. Raises ValueError where a number is missing or there twice."""
    found = sorted(
        (int(numbered[1]), file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if (numbered := _NUMBERED.fullmatch(file.name))
    )
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{folder}: migrations must be numbered 001, 002, … without a gap")
    return [text for _, text in found]


def read_queries(folder: Traversable) -> dict[str, str]:
    """By name. Raises ValueError on a name that is there twice."""
    queries: dict[str, str] = {}
    for file in folder.iterdir():
        if not file.name.endswith(".sql") or _NUMBERED.fullmatch(file.name):
            continue
        _, *parts = _HEAD.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in queries:
                raise ValueError(f"{file.name}: there are two queries named {name}")
            queries[name] = text.strip()
    return queries
