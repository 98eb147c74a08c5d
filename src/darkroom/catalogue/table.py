"""A TOML table that is read key by key, so that what nobody has asked for is found."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from darkroom.errors import BadCard

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class Table:
    """Every method but `refuse` and `has` takes its key out. All of them raise `BadCard`, naming file and key.

    values: as `tomllib` gives them, floats as `Decimal`.
    """

    def __init__(self, file: str, values: Mapping[str, Any], *, prefix: str = "") -> None:
        self._file = file
        self._prefix = prefix
        self._values = dict(values)

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise BadCard(f"{self._file}: {self._prefix}{key}: {problem}")

    def has(self, key: str) -> bool:
        return key in self._values

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._values)

    def text(self, key: str) -> str:
        """A string that is not blank."""
        value = self._take(key, str, "a string")
        if not value.strip():
            self.refuse(key, "is blank")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Strings, one at least, none of them twice."""
        values = self._take(key, list, "a list")
        if not values or not all(isinstance(value, str) and value for value in values):
            self.refuse(key, "must be a list of strings")
        if len(set(values)) < len(values):
            self.refuse(key, "has a value twice")
        return tuple(values)

    def choice(self, key: str, among: type[_E]) -> _E:
        value = self._take(key, str, "a string")
        try:
            return among(value)
        except ValueError:
            self.refuse(key, f"must be one of {', '.join(among)}, not {value!r}")

    def flag(self, key: str, *, default: bool) -> bool:
        return self._take(key, bool, "true or false") if self.has(key) else default

    def number(self, key: str) -> int | Decimal:
        value = self._take(key, object, "a number")
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.refuse(key, f"must be a number, not {value!r}")
        return value

    def integer(self, key: str) -> int:
        value = self.number(key)
        if not isinstance(value, int):
            self.refuse(key, f"must be a whole number, not {value}")
        return value

    def real(self, key: str) -> int | float:
        value = self.number(key)
        return value if isinstance(value, int) else float(value)

    def plain(self, key: str) -> str | int | float | bool:
        """A string, a number or a truth value."""
        value = self._take(key, object, "a value")
        if isinstance(value, Decimal):
            return float(value)
        if not isinstance(value, str | int | bool):
            self.refuse(key, f"must be a plain value, not {value!r}")
        return value

    def table(self, key: str) -> "Table":
        return Table(self._file, self._take(key, dict, "a table"), prefix=f"{self._prefix}{key}.")

    def end(self) -> None:
        """Raises `BadCard` if a key is left."""
        for key in self._values:
            self.refuse(key, "is not known here")

    def _take(self, key: str, kind: type[_T], name: str) -> _T:
        if key not in self._values:
            self.refuse(key, "is missing")
        value = self._values.pop(key)
        if not isinstance(value, kind):
            self.refuse(key, f"must be {name}, not {value!r}")
        return value
