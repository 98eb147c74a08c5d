"""`darkroom`: the commands, and how their errors are said."""

import sqlite3
import sys
from typing import Annotated

import typer

from darkroom import __version__
from darkroom.cli import checkpoints, doctor, edit, keys, loras, models, serve, settings
from darkroom.cli.console import note, say
from darkroom.errors import DarkroomError, JobError

FAILED = 1
"""Exit status when a job failed."""
REFUSED = 2
"""Exit status when a command was not understood, or can't run with these settings."""


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it with the flag's value
    if wanted:
        say(f"darkroom {__version__}")
        raise typer.Exit


def _darkroom(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Edit pictures by prompt: your own server behind Segmind's API, on your own machine.

    Every setting is a DARKROOM_… variable or a line in darkroom.toml, and a few are flags: see `darkroom settings`.
    """


app = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: [bold]darkroom doctor[/bold], then [bold]darkroom serve --help[/bold].",
)
app.callback()(_darkroom)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.command("edit", epilog=edit.EXAMPLES)(edit.edit)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(loras.app, name="loras")
app.command("settings", epilog=settings.EXAMPLES)(settings.settings)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)


def main() -> None:
    """Exit 0: done · 1: a job failed, or a check did · 2: not understood, or can't run so · 130: stopped by Ctrl-C."""
    try:
        app(prog_name="darkroom")
    except DarkroomError as error:
        note(f"darkroom: {error.message}")
        sys.exit(FAILED if isinstance(error, JobError) else REFUSED)
    except sqlite3.OperationalError as error:
        note(f"darkroom: the ledger can't be used: {error} (DARKROOM_DATA names its folder)")
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
