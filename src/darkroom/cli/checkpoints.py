"""`darkroom checkpoints`: make a small one, or look into any."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.console import note, say, show, size_of
from darkroom.errors import BadCheckpoint, BadSetting

app = typer.Typer(no_args_is_help=True, help="Make a small checkpoint, or look into one.")

MAKE_EXAMPLES = """Example:

  darkroom checkpoints make --size tiny ./tiny
"""
INSPECT_EXAMPLES = """Examples:

  darkroom checkpoints inspect ./tiny

  darkroom checkpoints inspect Qwen/Qwen-Image-Edit-2509
"""


class Size(StrEnum):
    TINY = "tiny"


@app.command("make", epilog=MAKE_EXAMPLES)
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it; new, or empty.")],
    size: Annotated[Size, typer.Option(help="tiny: seconds to make, seconds to edit with, on any machine.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weights.")] = 0,
) -> None:
    """Make a checkpoint with random weights, in the layout of the real one and of its classes.

    It shows that the whole way works; what it makes of a picture is noise.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadSetting(f"{folder} exists already: name a new folder, or empty this one")
    making = subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", f"darkroom.engine.{size}", str(folder), "--seed", str(seed)], check=False
    )
    if making.returncode:
        raise BadCheckpoint(f"{folder}: the checkpoint could not be made; the lines above say why")
    note(f"Made. Serve it: darkroom serve --checkpoint {folder}")
    say(str(folder))


@app.command("inspect", epilog=INSPECT_EXAMPLES)
def inspect_(
    name: Annotated[str, typer.Argument(metavar="PATH|HF-ID", help="A folder, or an id in the Hugging Face cache.")],
) -> None:
    """Show what a checkpoint holds: its parts, their classes, sizes and dtypes, and what is missing.

    Reads headers only, and downloads nothing. Exits 2 if the checkpoint could not be served.
    """
    from darkroom.checkpoint.inspect import inspect
    from darkroom.checkpoint.locate import locate

    report = inspect(locate(name, fetch=False))
    say(f"{report.folder}\n")
    show(
        ("part", "class", "files", "tensors", "parameters", "size", "stored as"),
        (
            (
                part.name,
                part.class_name,
                str(part.files),
                f"{part.tensors:,}",
                f"{part.parameters:,}",
                size_of(part.size_bytes),
                ", ".join(f"{dtype} {count / part.parameters:.0%}" for dtype, count in part.dtypes.items()),
            )
            for part in report.parts
        ),
        numbers=("files", "tensors", "parameters", "size"),
    )
    say(f"\n{report.parameters:,} parameters, {size_of(report.size_bytes)} in all")
    if sizes := report.working_sizes:
        say(
            f"works at {sizes.output_area_px:,} px (result), {sizes.vae_area_px:,} px (references), "
            f"{sizes.condition_area_px:,} px (text encoder)"
        )
    if report.problems:
        raise BadCheckpoint("this checkpoint can't be served:" + "".join(f"\n  {text}" for text in report.problems))
