"""`darkroom keys`: who may use the service, and how much."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.console import credits_of, note, say, show
from darkroom.errors import UnknownModel

if TYPE_CHECKING:
    from darkroom.ledger.contract import Ledger

FIRST_CREDITS = 1_000_000
"""What a key gets unless told otherwise: at the cards' prices, more than one person uses up."""

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The service's folder. (default: DARKROOM_DATA)", show_default=False),
]

CREATE_EXAMPLES = """Examples:

  KEY=$(darkroom keys create laptop)

  darkroom keys create shop --credits 500 --rate-per-minute 60 --models qwen-image-edit-plus
"""


@app.command("create", epilog=CREATE_EXAMPLES)
def create(
    name: Annotated[str, typer.Argument(help="What to call it; no two keys in use share a name.")],
    credits_: Annotated[int, typer.Option("--credits", min=0, help="What it may spend.")] = FIRST_CREDITS,
    rate_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests it may submit a minute. (default: no limit)", show_default=False)
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="SLUG,SLUG…", help="The models it may use. (default: all)", show_default=False),
    ] = None,
    data: Data = None,
) -> None:
    """Create a key. Standard output has the key and nothing else; it is not shown again."""
    from darkroom.catalogue import read_catalogue
    from darkroom.keys import create_key

    slugs = None if models is None else tuple(slug.strip() for slug in models.split(",") if slug.strip())
    known = read_catalogue()
    if unknown := [slug for slug in slugs or () if slug not in known]:
        raise UnknownModel(f"--models: there is no model {', '.join(unknown)}; `darkroom models` lists them")
    if slugs == ():
        raise UnknownModel("--models: name at least one model, or leave the flag out for all of them")
    with _ledger(data) as ledger:
        secret, key = create_key(ledger, name=name, credits=credits_, rate_per_minute=rate_per_minute, models=slugs)
    rate = "no rate limit" if key.rate_per_minute is None else f"{key.rate_per_minute} requests a minute"
    note(f"Key “{key.name}”: {credits_:,} credits, {rate}, models: {', '.join(key.models or ('all',))}.")
    note("Clients send it as the header x-api-key. Keep it now: only its digest is stored.")
    say(secret)


@app.command("list")
def list_(data: Data = None) -> None:
    """List all keys with their credits, oldest first; never their secrets."""
    with _ledger(data) as ledger:
        keys = ledger.keys()
    if not keys:
        note("There are no keys yet: darkroom keys create NAME")
        return
    show(
        ("name", "credits left", "held", "spent", "rate/min", "models", "created", "revoked"),
        (
            (
                key.name,
                credits_of(key.balance_micro),
                credits_of(key.held_micro),
                credits_of(key.spent_micro),
                "–" if key.rate_per_minute is None else str(key.rate_per_minute),
                "all" if key.models is None else ", ".join(key.models),
                _when(key.created_at),
                "–" if key.revoked_at is None else _when(key.revoked_at),
            )
            for key in keys
        ),
        numbers=("credits left", "held", "spent", "rate/min"),
    )


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name, as `darkroom keys list` shows it.")], data: Data = None
) -> None:
    """Revoke a key at once. What it has submitted already still runs."""
    with _ledger(data) as ledger:
        ledger.revoke_key(name)
    note(f"Key “{name}” is revoked.")


@contextmanager
def _ledger(data: Path | None) -> "Iterator[Ledger]":
    from darkroom.settings import read_settings
    from darkroom.stores import open_ledger

    ledger = open_ledger(read_settings(data=data))
    try:
        yield ledger
    finally:
        ledger.close()


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
