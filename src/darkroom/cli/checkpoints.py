"""`darkroom checkpoints`: make a small one, or look into any."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.console import note, say, show, size_of
from darkroom.errors import BadCheckpoint, BadSetting

if TYPE_CHECKING:
    from darkroom.checkpoint.declaration import Declaration
    from darkroom.checkpoint.download import Download
    from darkroom.checkpoint.inspect import Report

app = typer.Typer(no_args_is_help=True, help="Make a small checkpoint, or look into one.")

MAKE_EXAMPLES = """Example:

  darkroom checkpoints make --size tiny ./tiny
"""
INSPECT_EXAMPLES = """Examples:

  darkroom checkpoints inspect ./tiny

  darkroom checkpoints inspect Qwen/Qwen-Image-Edit-2509
"""
_VALUE_BYTES = {"bfloat16": 2, "float32": 4}
"""Of a parameter, by what is computed in."""


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

    Reads headers only, and downloads nothing. Of a Hugging Face id it says what is still to be downloaded.

    Exits 2 if the checkpoint could not be served.
    """
    from darkroom.checkpoint.download import plan_download
    from darkroom.checkpoint.inspect import inspect
    from darkroom.checkpoint.locate import find_cached, locate
    from darkroom.checkpoint.published import PUBLISHED

    on_hub = not Path(name).expanduser().exists()
    if on_hub and name in PUBLISHED and find_cached(name) is None:
        say(f"Nothing of {name} is in the Hugging Face cache yet; this is what was published.\n")
        _show_download(plan_download(Path(name), PUBLISHED[name]))
        return
    folder = locate(name, fetch=False)
    say(f"{folder}\n")
    if on_hub and (download := plan_download(folder, PUBLISHED.get(name, {}))):
        _show_download(download)
        return
    _show_report(inspect(folder))


def _show_download(download: "Download") -> None:
    show(
        ("part", "files here", "to download", "parameters", *_VALUE_BYTES, "missing"),
        (
            (
                part.name,
                str(len(part.here)),
                size_of(part.missing_bytes),
                f"{part.parameters:,}",
                *(size_of(part.parameters * size) for size in _VALUE_BYTES.values()),
                "all" if part.missing is None else ", ".join(part.missing) or "none",
            )
            for part in download.parts
        ),
        numbers=("files here", "to download", "parameters", *_VALUE_BYTES),
    )
    small = f", and small files: {', '.join(download.small_files)}" if download.small_files else ""
    say(f"\nto download: {size_of(download.missing_bytes)} of weights{small}")
    _say_memory(download.parameters)


def _say_memory(parameters: int) -> None:
    needed = (f"{size_of(parameters * size)} in {dtype}" for dtype, size in _VALUE_BYTES.items())
    say(f"memory for {parameters:,} parameters: {', '.join(needed)}; an edit needs more beside them")


def _show_declared(declared: "Declaration") -> None:
    sizes = declared.working_sizes
    say(
        f"works at {sizes.output_area_px:,} px (result), {sizes.vae_area_px:,} px (references), "
        f"{sizes.condition_area_px:,} px (text encoder); sides are multiples of {sizes.side_multiple_px}"
        + (f", {sizes.side_max_px} at most" if sizes.side_max_px else "")
    )
    if declared.guidance_scale is not None:
        say(f"guidance_scale is {declared.guidance_scale:g} unless a request gives one")
    if declared.loras:
        say(f"brings LoRAs of its own: {', '.join(declared.loras)}")


def _show_report(report: "Report") -> None:
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
    _say_memory(report.kept_parameters)
    for part in report.parts:
        if part.name == "transformer":
            of_2511 = part.config.get("zero_cond_t")
            say(f"references are seen {'at timestep 0, as 2511 does' if of_2511 else 'like the result, as 2509 does'}")
    if report.declared:
        _show_declared(report.declared)
    if report.problems:
        raise BadCheckpoint("this checkpoint can't be served:" + "".join(f"\n  {text}" for text in report.problems))
