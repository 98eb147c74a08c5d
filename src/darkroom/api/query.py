"""Reading an address's query: what comes after the `?`."""

import re
from collections.abc import Collection
from datetime import date

from starlette.requests import Request

from darkroom.catalogue.parameter import nearest, shorten
from darkroom.errors import InvalidField, UnknownField

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def check_name(name: str, names: Collection[str]) -> None:
    """Raises `UnknownField` for a parameter that is none of these."""
    if name not in names:
        raise UnknownField(
            f"There is no parameter {shorten(name)!r}{nearest(name, names)} (all: {', '.join(names)})",
            field=shorten(name),
        )


class Query:
    """Every method raises `InvalidField` for a value that is not what it reads.

    names: all there may be. Raises `UnknownField` for another, `InvalidField` for one that is there twice.
    """

    def __init__(self, request: Request, names: Collection[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            check_name(name, names)
            if name in self._values:
                raise InvalidField(f"{name} stands twice in the address", field=name)
            self._values[name] = value

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def whole(self, name: str, *, default: int, most: int | None = None) -> int:
        """A whole number from 1 on."""
        text = self._values.get(name)
        if text is None:
            return default
        try:
            value = int(text) if text.isascii() and text.isdigit() else 0
        except ValueError:  # more digits than Python reads
            value = 0
        if value < 1 or (most is not None and value > most):
            bounds = "1 or more" if most is None else f"from 1 to {most}"
            raise InvalidField(f"{name} must be a whole number, {bounds}; got {shorten(text)!r}", field=name)
        return value

    def choice(self, name: str, among: Collection[str]) -> str | None:
        text = self._values.get(name)
        if text is not None and text not in among:
            raise InvalidField(f"{name} must be one of {', '.join(among)}; got {shorten(text)!r}", field=name)
        return text

    def day(self, name: str) -> date | None:
        text = self._values.get(name)
        if text is None:
            return None
        try:
            if _DAY.fullmatch(text):
                return date.fromisoformat(text)
        except ValueError:
            pass
        raise InvalidField(f"{name} must be a day, like 2026-11-29; got {shorten(text)!r}", field=name)
