"""`darkroom edit`: one to three pictures and a prompt, to a file; in this process, or by a server."""

import asyncio
import io
import os
import signal
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.console import note, say
from darkroom.cli.models import complete_slug
from darkroom.errors import DarkroomError, InvalidField, UnknownModel

if TYPE_CHECKING:
    from darkroom.cli.making import Edited

EXAMPLES = """Examples:

  darkroom edit samples/ball.png -p "Make the ball red" -o red.png

  darkroom edit sofa.jpg woman.png -p "The woman sits on the sofa" -o scene.webp --seed 7

  darkroom edit photo.jpg -p "Make it snow" -o snow.png --server http://127.0.0.1:8000 --key dk_…
"""

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
STOPPED = 130
"""Exit status when Ctrl-C or SIGTERM cancelled the job."""
DEFAULT_MODEL = "qwen-image-edit-plus"


def edit(  # noqa: PLR0913, PLR0917  a flag each
    pictures: Annotated[
        list[str], typer.Argument(metavar="IMAGE…", help="One to three pictures, files or URLs, as the prompt counts.")
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to do, in words.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the result goes; .png (without loss), .jpg, .jpeg or .webp.")
    ],
    model: Annotated[
        str,
        typer.Option(
            *("--model", "-m"),
            metavar="SLUG",
            autocompletion=complete_slug,
            help="Which model; `darkroom models` lists them.",
        ),
    ] = DEFAULT_MODEL,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same picture; -1 picks one. (default: the model's)")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: the model's)")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt. (default: the model's)")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the result should not be.")] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(metavar="W:H", help="Shape of the result. (default: the first picture's)")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="Of a .jpg or .webp, 10 to 100. (default: the model's)")] = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="Let this Darkroom server do it.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="SEGMIND_API_KEY", metavar="KEY", help="API key for --server.")
    ] = None,
) -> None:
    """Edit pictures by prompt, here or on a server.

    Here, it loads the model that DARKROOM_CHECKPOINT names, or the one that `darkroom serve` takes without one.

    The job is counted and kept as any client's is; Ctrl-C cancels it.
    """
    image_format = format_of(out)
    if server is not None and not key:
        raise InvalidField("--server needs a key: --key dk_…, or the variable SEGMIND_API_KEY", field="key")
    if quality is not None and image_format == "png":
        raise InvalidField("--quality: a .png is written without loss; it is for .jpg and .webp", field="quality")
    given = read_pictures(model, pictures)
    params = given | {
        "prompt": prompt,
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "negative_prompt": negative_prompt,
        "aspect_ratio": aspect_ratio,
        "image_format": image_format,
        "quality": quality,
    }
    with naming(dict(zip(given, pictures, strict=True))):
        edited = _make(model, params, server=server, key=key)
    write_atomically(out, edited.data)
    _report(out, edited)


def format_of(out: Path) -> str:
    """The format that OUT's suffix asks for. Raises `InvalidField` if that, or the place, can't be."""
    image_format = FORMATS.get(out.suffix.lower())
    if image_format is None:
        raise InvalidField(f"--out {out}: name a file that ends in {', '.join(FORMATS)}", field="out")
    if out.is_dir():
        raise InvalidField(f"--out {out} is a folder; name a file in it", field="out")
    if not out.parent.is_dir():
        raise InvalidField(f"--out {out}: its folder does not exist", field="out")
    return image_format


def read_pictures(slug: str, pictures: Sequence[str]) -> dict[str, object]:
    """The pictures under the names that the model's card has for them: an address as it is, a file as its bytes."""
    from darkroom.catalogue import read_catalogue

    card = read_catalogue().get(slug)
    if card is None:
        raise UnknownModel(f"--model: there is no model {slug!r}; `darkroom models` lists them", field="model")
    if len(pictures) > len(card.pictures):
        raise InvalidField(f"{slug} takes at most {len(card.pictures)} pictures, not {len(pictures)}", field="pictures")
    return {name: _read(picture) for name, picture in zip(card.pictures, pictures, strict=False)}


@contextmanager
def naming(pictures: Mapping[str, str]) -> Iterator[None]:
    """Errors of a picture's parameter say which picture that is. pictures: as they were named, by parameter."""
    from darkroom.catalogue.parameter import shorten

    try:
        yield
    except DarkroomError as error:
        if error.field is not None and error.field in pictures:
            error.message = f"{shorten(pictures[error.field])}: {error.message}"
        raise


def _read(picture: str) -> str | bytes:
    if picture.startswith(("http://", "https://", "data:")):
        return picture
    try:
        return Path(picture).expanduser().read_bytes()
    except OSError as error:
        raise InvalidField(f"{picture}: {error.strerror}", field="pictures") from error


def _make(slug: str, params: Mapping[str, object], *, server: str | None, key: str | None) -> "Edited":
    from darkroom.cli.default import with_checkpoint
    from darkroom.cli.making import edit_here, edit_there
    from darkroom.cli.progress import Bar
    from darkroom.settings import read_settings
    from darkroom.stores import check_data

    given = {name: value for name, value in params.items() if value is not None}
    try:
        if server is not None and key is not None:
            with Bar(waiting="waiting for the server") as bar:
                return asyncio.run(_stoppable(edit_there(server, key, slug, given, bar.observe)))
        settings = read_settings()
        if "log_level" not in settings.model_fields_set:
            settings = settings.model_copy(update={"log_level": "warning"})
        settings = with_checkpoint(settings)
        check_data(settings)
        with Bar(waiting="loading the model") as bar:
            return asyncio.run(_stoppable(edit_here(settings, slug, given, bar.observe)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("darkroom: cancelled")
        raise typer.Exit(STOPPED) from None


async def _stoppable(making: Awaitable["Edited"]) -> "Edited":
    """Have SIGTERM cancel the task as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await making


def write_atomically(out: Path, data: bytes) -> None:
    """Put the file in place whole: nobody ever sees half of it, and a picture there before stays until then."""
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(out)
    except OSError as error:
        raise InvalidField(f"--out {out}: {error.strerror}", field="out") from error
    finally:
        draft.unlink(missing_ok=True)


def _report(out: Path, edited: "Edited") -> None:
    from PIL import Image

    with Image.open(io.BytesIO(edited.data)) as picture:
        width, height = picture.size
    say(f"{out}  {width} × {height}  {len(edited.data):,} bytes  seed {edited.seed}")
    say("  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in edited.timings_s.items()))
    for warning in edited.warnings:
        note(f"darkroom: {warning}")
