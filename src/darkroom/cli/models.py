"""`darkroom models`: what can be asked for."""

import json
from typing import Annotated

import typer

from darkroom.cli.console import credits_of, say, show
from darkroom.errors import UnknownModel

EXAMPLES = """Examples:

  darkroom models

  darkroom models show qwen-image-edit-plus
"""

app = typer.Typer(help="List the models, or show what one takes.", epilog=EXAMPLES)


def complete_slug(incomplete: str) -> list[str]:
    """For the shell: the models whose names begin so."""
    from darkroom.catalogue import read_catalogue

    return [slug for slug in read_catalogue() if slug.startswith(incomplete)]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context) -> None:
    """List the models, or show what one takes."""
    from darkroom.catalogue import read_catalogue

    if context.invoked_subcommand is not None:
        return
    show(
        ("slug", "title", "credits", "pictures", "adapter"),
        (
            (card.slug, card.title, credits_of(card.price_micro), f"1–{len(card.pictures)}", card.preset or "–")
            for card in read_catalogue().values()
        ),
        numbers=("credits",),
    )


@app.command("show")
def show_(
    slug: Annotated[str, typer.Argument(help="As `darkroom models` lists it.", autocompletion=complete_slug)],
) -> None:
    """Show a model's parameters: type, default, what is allowed, what it is for."""
    from darkroom.catalogue import read_catalogue

    card = read_catalogue().get(slug)
    if card is None:
        raise UnknownModel(f"there is no model {slug!r}; `darkroom models` lists them", field="slug")
    say(f"{card.slug}: {card.title}, {credits_of(card.price_micro)} credits an edit\n{card.description}\n")
    show(
        ("parameter", "type", "default", "allowed", "what it is"),
        (
            (
                parameter.name,
                parameter.type,
                "required" if parameter.needed else _default(parameter.default),
                parameter.allowed,
                parameter.description + (" (Darkroom's own)" if parameter.extension else ""),
            )
            for parameter in card.parameters.values()
        ),
    )


def _default(value: str | float | None) -> str:
    return "–" if value in (None, "") else json.dumps(value, ensure_ascii=False)
