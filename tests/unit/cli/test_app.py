import inspect
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from darkroom import __version__
from darkroom.cli import app as cli
from darkroom.errors import BadSetting, InvalidField, JobError

HEAVY = ("torch", "transformers", "diffusers", "fastapi", "aiohttp", "pydantic_settings", "PIL")


def test_help_names_every_command(darkroom):
    """The first page says all that the command can do."""
    ran = darkroom("--help")
    assert ran.code == 0
    for command in ("serve", "edit", "keys", "models", "checkpoints", "settings", "doctor"):
        assert f" {command} " in ran.out


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "edit", "keys create", "keys list", "keys revoke", "models", "models show", "settings", "doctor"),
        *("checkpoints make", "checkpoints inspect"),
    ],
)
def test_every_command_has_help(darkroom, command):
    """Each command says what it does, and leaves nothing undocumented."""
    ran = darkroom(*command.split(), "--help")
    assert ran.code == 0
    assert f"Usage: darkroom {command}" in ran.out
    text = ran.out.split("\n", 3)[3]
    assert len(text.split("╭")[0].strip()) > 20


def callbacks(app: typer.Typer) -> Iterator[object]:
    """What every command and group calls."""
    yield from (command.callback for command in app.registered_commands)
    for group in app.registered_groups:
        yield from callbacks(group.typer_instance)
    if app.registered_callback:
        yield app.registered_callback.callback


def test_help_breaks_no_sentence():
    """Where a paragraph has a line break, help has one too: so each is one line, which terminals wrap."""
    found = list(callbacks(cli.app))
    assert len(found) > 15
    for callback in found:
        paragraphs = inspect.getdoc(callback).split("\n\n")
        assert [text for text in paragraphs if "\n" in text] == []


def test_version(darkroom):
    """The version is the package's."""
    assert darkroom("--version").out == f"darkroom {__version__}\n"


def test_completion_is_offered(darkroom, monkeypatch):
    """Shells can be taught to complete the command; which one runs the tests doesn't matter."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_DARKROOM_COMPLETE" in darkroom("--show-completion", "bash").out


def test_help_imports_nothing_heavy():
    """Help comes at once: what a command needs is imported when it runs, and torch never."""
    code = f"import sys, darkroom.cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadSetting("set it"), 2), (InvalidField("seed must be whole", field="seed"), 2), (JobError("no picture"), 1)],
)
def test_expected_errors_are_one_line(darkroom, monkeypatch, error, code):
    """An error raised on purpose is one line on standard error and no traceback; failed jobs exit 1, the rest 2."""

    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert darkroom() == (code, "", f"darkroom: {error.message}\n")


def test_a_ledger_that_cant_be_written_is_one_line(darkroom, monkeypatch):
    """It may be another user's file; the setting to change is named."""

    def fail(**_):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(cli, "app", fail)
    said = "the ledger can't be used: attempt to write a readonly database (DARKROOM_DATA names its folder)"
    assert darkroom() == (2, "", f"darkroom: {said}\n")


def test_unknown_commands_get_the_nearest(darkroom):
    """A typing slip is answered with what was meant."""
    ran = darkroom("serv")
    assert ran.code == 2
    assert "serve" in ran.err


def test_an_unknown_variable_is_refused(darkroom, monkeypatch):
    """A misspelt setting stops the command and is named."""
    monkeypatch.setenv("DARKROOM_CHEKPOINT", "x")
    ran = darkroom("serve")
    assert ran.code == 2
    assert "DARKROOM_CHEKPOINT" in ran.err
