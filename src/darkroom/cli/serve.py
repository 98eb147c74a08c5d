"""`darkroom serve`: the API, its worker and the embedded ledger, until told to stop."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

  darkroom serve

  darkroom serve --checkpoint Qwen/Qwen-Image-Edit-2509 --host 0.0.0.0 --data /srv/darkroom
"""
"""Shown under the command's help."""


def serve(
    checkpoint: Annotated[
        str | None, typer.Option(metavar="PATH|HF-ID", help="The model. (default: DARKROOM_CHECKPOINT, else see below)")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one. (default: 8000)")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of ledger and pictures.")] = None,
) -> None:
    """Serve the API on this machine, with the model in a worker process of its own.

    With no model named it takes Qwen/Qwen-Image-Edit-2509, if that is in the Hugging Face cache and a GPU has room.

    Otherwise it takes nano, a small one that comes with Darkroom and edits rendered scenes on any machine.

    When the model is loaded, prints “Darkroom is ready on URL”; the first time a key, too.

    Stop it with Ctrl-C or SIGTERM: the running job ends (DARKROOM_DRAIN_S), the waiting ones are kept.
    """
    from darkroom.cli.default import with_checkpoint
    from darkroom.cli.listener import listen
    from darkroom.cli.server import run
    from darkroom.settings import read_settings
    from darkroom.stores import check_data

    settings = with_checkpoint(read_settings(checkpoint=checkpoint, host=host, port=port, data=data))
    check_place(str(settings.checkpoint))
    check_data(settings)
    with listen(settings.host, settings.port) as listener:
        asyncio.run(run(settings, listener))


def check_place(checkpoint: str) -> None:
    """Raises `BadCheckpoint` for a path that leads nowhere. What may be a Hugging Face id, its worker looks for."""
    from darkroom.checkpoint.locate import is_hub_id, locate

    if not is_hub_id(checkpoint):
        locate(checkpoint, fetch=False)
