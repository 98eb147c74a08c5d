"""Reads the cards. A card is TOML, and nothing in it is guessed at or passed over."""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from darkroom.catalogue.card import Card, Sampling
from darkroom.catalogue.parameter import Kind, Parameter
from darkroom.catalogue.table import Table
from darkroom.edit import ImageFormat
from darkroom.errors import BadCard, InvalidField
from darkroom.job import MICRO

CARDS: Final = Path(__file__).parent / "cards"
FAMILIES: Final = "families"

_RATIO = re.compile(r"[1-9][0-9]?:[1-9][0-9]?|match_input_image")
_FORMAT = re.compile("|".join(ImageFormat))
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SAMPLED: Final = {
    "num_inference_steps": Kind.INTEGER,
    "guidance_scale": Kind.NUMBER,
    "negative_prompt": Kind.STRING,
}
_DEFAULTED: Final = {
    "aspect_ratio": Kind.STRING,
    "base64": Kind.BOOLEAN,
    "image_format": Kind.STRING,
    "quality": Kind.INTEGER,
}
_MUST: Final = _SAMPLED | _DEFAULTED | {"prompt": Kind.STRING, "seed": Kind.INTEGER}
_MAY: Final = {
    "go_fast": Kind.BOOLEAN,
    "lora": Kind.STRING,
    "lora_2_url": Kind.STRING,
    "lora_3_url": Kind.STRING,
    "lora_scale": Kind.NUMBER,
    "lora_2_scale": Kind.NUMBER,
    "lora_3_scale": Kind.NUMBER,
}
"""What admission reads. A picture may have any name; anything else would be accepted and ignored."""

_WITHIN: Final = {"quality": (1, 100), "seed": (-1, 2**63 - 1), "num_inference_steps": (1, 1000)}
"""What the encoders, the noise and a deadline can take."""


def read_catalogue(folder: Path = CARDS) -> Mapping[str, Card]:
    """The cards of a folder by slug, sorted by it.

    A card that names a `family` takes over what families/NAME.toml says, but for what it says itself. Raises `BadCard`,
    which names file and key.
    """
    found: dict[str, Card] = {}
    for path in sorted(folder.glob("*.toml")):
        card = _card(Table(path.name, _with_family(path)))
        if card.slug in found:
            raise BadCard(f"{path.name}: slug: {card.slug!r} is another card's already")
        found[card.slug] = card
    if not found:
        raise BadCard(f"{folder}: there is no card (*.toml) here")
    return MappingProxyType(dict(sorted(found.items())))


def _with_family(path: Path) -> dict[str, Any]:
    values = _toml(path)
    family = values.pop("family", None)
    if family is None:
        return values
    source = path.parent / FAMILIES / f"{family}.toml"
    if not isinstance(family, str) or not source.is_file():
        raise BadCard(f"{path.name}: family: there is no {FAMILIES}/{family}.toml")
    return _merged(_toml(source), values)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, in the order of the one below; of anything else the upper one stands."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        both[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except ValueError as error:
        raise BadCard(f"{path.name} is not TOML: {error}") from error


def _card(table: Table) -> Card:
    parameters = _parameters(table.table("parameters"))
    slug = table.text("slug")
    if not _SLUG.fullmatch(slug):
        table.refuse("slug", f"must be lower-case words joined by hyphens, not {slug!r}")
    card = Card(
        slug=slug,
        title=table.text("title"),
        description=table.text("description"),
        price_micro=_price_micro(table),
        parameters=MappingProxyType(parameters),
        quality=_sampling(table.table("quality"), parameters),
        fast=_sampling(table.table("fast"), parameters) if table.has("fast") else None,
    )
    table.end()
    if (card.fast is None) == ("go_fast" in parameters):
        table.refuse("fast", "must be there if the parameter go_fast is, and only then")
    return card


def _price_micro(table: Table) -> int:
    micro = table.number("price") * MICRO
    if micro < 0 or micro != int(micro):
        table.refuse("price", "must be in credits, not below zero, with at most six decimals")
    return int(micro)


def _sampling(table: Table, parameters: Mapping[str, Parameter]) -> Sampling:
    """Raises `BadCard` too for a value that a request could not ask for."""
    values = {name: _checked(table, name, parameters) for name in _SAMPLED}
    table.end()
    return Sampling(**values)


def _checked(table: Table, key: str, parameters: Mapping[str, Parameter]) -> Any:
    value = table.plain(key)
    try:
        checked = parameters[key].check(value, text=False)
    except InvalidField as error:
        table.refuse(key, error.message)
    if checked is None:
        table.refuse(key, "is missing")
    return checked


def _parameters(table: Table) -> dict[str, Parameter]:
    found = {name: _parameter(name, table.table(name)) for name in table.keys}
    for name in _MUST:
        if name not in found:
            table.refuse(name, "is missing")
    for name, parameter in found.items():
        kind = (_MUST | _MAY).get(name, Kind.IMAGE)  # nothing else is read under a name of the card's own
        if parameter.type is not kind:
            table.refuse(f"{name}.type", f"must be {kind}")
    _check_values(table, found)
    return found


def _check_values(table: Table, found: Mapping[str, Parameter]) -> None:
    """That whatever passes the parameters' own checks can be settled into an edit."""
    for name in _DEFAULTED:
        if found[name].default in (None, ""):
            table.refuse(f"{name}.default", "is missing")
    for name, pattern in {"aspect_ratio": _RATIO, "image_format": _FORMAT}.items():
        if not found[name].enum or not all(pattern.fullmatch(value) for value in found[name].enum):
            table.refuse(f"{name}.enum", f"must have values like {pattern.pattern}")
    for name, (least, most) in _WITHIN.items():
        minimum, maximum = found[name].minimum, found[name].maximum
        if minimum is None or maximum is None or minimum < least or maximum > most:
            table.refuse(name, f"must be bounded within {least} and {most}")
    if not found["prompt"].needed:
        table.refuse("prompt.needed", "must be true")
    if not any(parameter.needed for parameter in found.values() if parameter.type is Kind.IMAGE):
        table.refuse("image", "one picture at least must be needed")


def _parameter(name: str, table: Table) -> Parameter:
    kind = table.choice("type", Kind)
    required = table.flag("required", default=False)
    enum = table.texts("enum") if kind is Kind.STRING and table.has("enum") else ()
    bounded = kind in (Kind.INTEGER, Kind.NUMBER)
    bound = table.integer if kind is Kind.INTEGER else table.real
    parameter = Parameter(
        name=name,
        type=kind,
        description=table.text("description"),
        required=required,
        needed=table.flag("needed", default=required),
        default=table.plain("default") if table.has("default") else None,
        minimum=bound("minimum") if bounded else None,
        maximum=bound("maximum") if bounded else None,
        enum=enum,
        max_chars=table.integer("max_chars") if kind is Kind.STRING and not enum else None,
        extension=table.flag("extension", default=False),
    )
    table.end()
    if parameter.minimum is not None and parameter.maximum is not None and parameter.minimum > parameter.maximum:
        table.refuse("minimum", f"is above the maximum, {parameter.maximum}")
    try:
        parameter.check(parameter.default, text=False)
    except InvalidField as error:
        table.refuse("default", error.message)
    return parameter
