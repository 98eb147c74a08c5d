"""`darkroom loras`: which there are, bring more in, look into them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.console import note, say, show, size_of
from darkroom.errors import BadSetting, DarkroomError, LoraError

if TYPE_CHECKING:
    from darkroom.lora.inspect import Report
    from darkroom.lora.remote import Advance
    from darkroom.lora.shelf import Shelf
    from darkroom.settings import Settings

app = typer.Typer(no_args_is_help=True, help="List, bring in, pin and remove LoRAs, or look into one.")

LIST_EXAMPLES = """Examples:

  darkroom loras list

  darkroom loras list --json
"""
ADD_EXAMPLES = """Examples:

  darkroom loras add relight ./my-relight.safetensors

  darkroom loras add film owner/name/file.safetensors --scale 0.8 --trigger "film grain"
"""
FETCH_EXAMPLES = """Examples:

  darkroom loras fetch --presets

  darkroom loras fetch relight next_scene

  darkroom loras fetch https://huggingface.co/owner/name/blob/main/file.safetensors
"""
PIN_EXAMPLES = """Examples:

  darkroom loras pin 3f9a0c12

  darkroom loras pin 3f9a0c12 --off
"""
REMOVE_EXAMPLES = """Examples:

  darkroom loras remove relight

  darkroom loras remove 3f9a0c12
"""
INSPECT_EXAMPLES = """Examples:

  darkroom loras inspect ./my-relight.safetensors

  darkroom loras inspect relight

  darkroom loras inspect owner/name/file.safetensors
"""
SHOWN_DIGITS = 12
"""Of a digest: enough to name it by."""

Wanted = Annotated[str, typer.Argument(metavar="NAME|DIGEST", help="As `darkroom loras list` has it.")]


@app.command("list", epilog=LIST_EXAMPLES)
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False) -> None:
    """List the presets, and what else is here: by name, or brought by a request."""
    listed = list(_shelf().listed())
    if as_json:
        say(json.dumps([asdict(one) for one in listed], indent=2, ensure_ascii=False))
        return
    show(
        ("name", "trigger", "scale", "installed", "digest", "size", "pinned", "from"),
        (
            (
                one.name or "–",
                one.trigger or "–",
                f"{one.scale:g}",
                "yes" if one.installed else "no",
                one.digest[:SHOWN_DIGITS] if one.digest else "–",
                size_of(one.size_bytes) if one.installed else "–",
                "yes" if one.pinned else "no",
                one.source or "–",
            )
            for one in listed
        ),
        numbers=("scale", "size"),
    )


@app.command("add", epilog=ADD_EXAMPLES)
def add(
    name: Annotated[str, typer.Argument(help="A preset's, which gets this file, or a new one.")],
    source: Annotated[str, typer.Argument(metavar="FILE|ADDRESS", help="A .safetensors file, or where to fetch one.")],
    scale: Annotated[float | None, typer.Option(help="Strength unless a request gives one.")] = None,
    trigger: Annotated[str | None, typer.Option(help="What the prompt has to say for it to work.")] = None,
) -> None:
    """Keep a LoRA under a name, until it is removed."""
    shelf = _shelf()
    digest = _brought(name, partial(shelf.add, name, source, scale=scale, trigger=trigger))
    note(f"{name} is installed.")
    say(digest)


@app.command("fetch", epilog=FETCH_EXAMPLES)
def fetch(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|ADDRESS]...", help="Presets, or addresses.")
    ] = None,
    *,
    presets: Annotated[bool, typer.Option("--presets", help="All presets that are not installed yet.")] = False,
) -> None:
    """Fetch presets and install them, or files from any address, so that no request has to wait for them.

    A preset that is installed is fetched again if its source has another file by now.

    Exits 1 if any could not be had; the others are fetched all the same.
    """
    shelf = _shelf()
    missing = [one.name for one in shelf.listed() if one.name and not one.installed] if presets else []
    names = [*(wanted or ()), *missing]
    if not names and not presets:
        raise BadSetting("name presets or addresses, or say --presets for all")
    failed: dict[str, DarkroomError] = {}
    for name in names:
        try:
            say(f"{_brought(name, partial(shelf.fetch, name))} {name}")
        except DarkroomError as error:
            failed[name] = error
    for name, why in failed.items():
        note(f"darkroom: {name}: {why.message.removeprefix(f'{why.field}: ')}")
    if failed:
        raise typer.Exit(1)


@app.command("pin", epilog=PIN_EXAMPLES)
def pin(wanted: Wanted, *, off: Annotated[bool, typer.Option("--off", help="Let it go again.")] = False) -> None:
    """Keep a file, however long it goes unused. What goes by a name is kept anyway."""
    shelf = _shelf()
    say(shelf.unpin(wanted) if off else shelf.pin(wanted))


@app.command("remove", epilog=REMOVE_EXAMPLES)
def remove(wanted: Wanted) -> None:
    """Take a name away, and its file if it has no other; or a file that has none."""
    say(_shelf().remove(wanted))


@app.command("inspect", epilog=INSPECT_EXAMPLES)
def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE|NAME|ADDRESS", help="Of an address, only the header is read.")],
) -> None:
    """Show what a LoRA holds: its layout, ranks, what of the model it changes, and why it would be refused.

    Exits 2 if it would be.
    """
    from darkroom.cli.default import REAL
    from darkroom.lora.base import Base, published_modules
    from darkroom.lora.inspect import describe

    settings = _settings()
    try:
        header, path = asyncio.run(_shelf(settings).header(source))
    except DarkroomError as error:
        if Path(source).expanduser().is_dir():
            raise BadSetting(f"{source} is a folder; name a .safetensors file in it") from error
        if isinstance(error, LoraError) and error.field is None:
            raise error.at(source) from error
        raise
    modules, checkpoint = Base(settings.checkpoint).modules, settings.checkpoint
    if modules is None:
        modules, checkpoint = published_modules(), REAL
    _show_report(describe(header, modules, path), checkpoint)


def _show_report(report: "Report", checkpoint: str | None) -> None:
    rows = {
        "layout": ", ".join(report.layouts),
        "kinds": ", ".join(f"{count} {kind}" for kind, count in report.kinds.items()),
        "ranks": _from_to(report.ranks),
        "scale": _from_to(report.scales),
        "stored as": ", ".join(f"{count} {dtype}" for dtype, count in report.dtypes.items()),
        "trained on": report.base or "",
        "size": f"{size_of(report.size_bytes)}, {report.tensors:,} tensors, {report.parameters:,} parameters",
    }
    for name, value in rows.items():
        say(f"{name:<11}{value or '–'}")
    if report.coverage:
        say(f"\nchanges {report.modules:,} modules:")
        show(
            ("module", "changed", "of"),
            ((name, str(changed), str(whole)) for name, (changed, whole) in report.coverage.items()),
            numbers=("changed", "of"),
        )
    if report.problems:
        problems = "".join(f"\n  {problem}" for problem in report.problems)
        raise BadSetting(f"this LoRA can't be used with the checkpoint {checkpoint}:{problems}")


def _from_to(values: tuple[float, float] | None) -> str:
    if values is None:
        return ""
    least, most = values
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _settings() -> "Settings":
    from darkroom.cli.default import with_checkpoint
    from darkroom.settings import read_settings

    return with_checkpoint(read_settings(), tell=lambda _: None)


def _shelf(settings: "Settings | None" = None) -> "Shelf":
    from darkroom.lora.shelf import Shelf
    from darkroom.stores import open_loras

    return Shelf(open_loras(settings or _settings()))


def _brought(what: str, bring: "Callable[[Advance], Awaitable[str]]") -> str:
    """Bring a file in; its digest. With a bar on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    async def run() -> str:
        return await bring(lambda done, size: progress.update(task, completed=done, total=size))

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        return asyncio.run(run())
