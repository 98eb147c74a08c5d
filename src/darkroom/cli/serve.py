"""`darkroom serve`: the API, its worker and the embedded ledger, until told to stop."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.errors import BadSetting

if TYPE_CHECKING:
    from darkroom.settings import Settings

EXAMPLES = """Examples:

  darkroom checkpoints make --size tiny ./tiny && darkroom serve --checkpoint ./tiny

  darkroom serve --checkpoint Qwen/Qwen-Image-Edit-2509 --host 0.0.0.0 --data /srv/darkroom
"""
"""Shown under the command's help."""


def serve(
    checkpoint: Annotated[
        str | None, typer.Option(metavar="PATH|HF-ID", help="The model. (default: DARKROOM_CHECKPOINT)")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one. (default: 8000)")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of ledger and pictures.")] = None,
) -> None:
    """Serve the API on this machine, with the model in a worker process of its own.

    When the model is loaded, prints “Darkroom is ready on URL”; the first time a key, too.

    Stop it with Ctrl-C or SIGTERM: the running job ends (DARKROOM_DRAIN_S), the waiting ones are kept.
    """
    from darkroom.cli.listener import listen
    from darkroom.cli.server import run
    from darkroom.settings import read_settings

    settings = read_settings(checkpoint=checkpoint, host=host, port=port, data=data)
    require_checkpoint(settings)
    with listen(settings.host, settings.port) as listener:
        asyncio.run(run(settings, listener))


def require_checkpoint(settings: "Settings") -> None:
    """Raises `BadSetting` if there is nothing to load."""
    if settings.checkpoint is None:
        raise BadSetting(
            "no checkpoint is set: `darkroom checkpoints make --size tiny DIR` makes a small one; name it in "
            "DARKROOM_CHECKPOINT (or after --checkpoint), or a Hugging Face id such as Qwen/Qwen-Image-Edit-2509"
        )
