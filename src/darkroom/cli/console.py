"""How commands speak: results on standard output, everything else on standard error."""

import sys
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table

from darkroom.job import MICRO

PIPED_WIDTH = 200
"""Columns of a table that no terminal limits."""


def say(text: str) -> None:
    """A line of a command's result, seen at once even through a pipe."""
    typer.echo(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the result."""
    typer.echo(text, err=True)


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """A table on standard output; the columns in `numbers` are set to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, emoji=False, highlight=False).print(table)


def credits_of(micro: int) -> str:
    """Micro-credits as credits, exactly."""
    whole, rest = divmod(micro, MICRO)
    return f"{whole:,}" + (f".{rest:06d}".rstrip("0") if rest else "")


def size_of(size_bytes: float) -> str:
    """For people: in the unit that leaves one to three digits before the point."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} bytes" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
