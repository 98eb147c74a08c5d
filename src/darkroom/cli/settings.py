"""`darkroom settings`: every setting, as it is in force here."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from darkroom.cli.console import say, show
from darkroom.errors import BadSetting

EXAMPLES = """Examples:

  darkroom settings

  DARKROOM_RETENTION_S=7200 darkroom settings --json
"""


def settings(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False) -> None:
    """List all settings: name, value in force, default, and what each is for.

    They come from DARKROOM_… variables and from darkroom.toml, or the file that DARKROOM_CONFIG names.
    """
    from darkroom.settings import HINT, read_settings, rows

    bad: BadSetting | None = None
    try:
        listed = rows(read_settings())
    except BadSetting as error:
        # Whoever has a bad one was sent here to see which there are.
        bad, listed = error, rows(None)
    if as_json:
        say(json.dumps([asdict(row) for row in listed], indent=2, ensure_ascii=False))
    else:
        show(
            ("name", "value", "default", "what it does"),
            ((row.name, row.value, row.default, row.help) for row in listed),
        )
    if bad:
        raise BadSetting(f"{bad.message.removesuffix(HINT)}; until that is mended no values can be shown")
