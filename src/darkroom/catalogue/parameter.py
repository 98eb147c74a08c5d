"""One parameter of a model, and what may be sent as it."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from darkroom.errors import InvalidField

Value = str | bytes | int | float | bool
"""A checked value. Bytes are a file, and only a picture is one."""

SHOWN_CHARS: Final = 60

_INTEGER = re.compile(r"([+-]?[0-9]{1,20})(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


class Kind(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    IMAGE = "image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter as its model's card has it.

    required: how the product page marks it; needed: whether a request is refused without it, which a default does not
    change. default: "" stands for none, as None does. minimum, maximum: of integers and numbers, both inclusive.
    enum: the only strings allowed; max_chars: of any other string. extension: not on the product page, ours.
    """

    name: str
    type: Kind
    description: str
    required: bool
    needed: bool
    default: str | int | float | bool | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    enum: tuple[str, ...] = ()
    max_chars: int | None = None
    extension: bool = False

    @property
    def allowed(self) -> str:
        """What may be sent, in words that follow "must be"."""
        match self.type:
            case Kind.BOOLEAN:
                return "true or false"
            case Kind.INTEGER:
                return f"a whole number from {self.minimum} to {self.maximum}"
            case Kind.NUMBER:
                return f"a number from {self.minimum} to {self.maximum}"
            case Kind.IMAGE:
                return "a picture: an http(s) address, a data URL, base64, or a multipart file"
            case Kind.STRING if self.enum:
                return f"one of {', '.join(self.enum)}"
            case Kind.STRING:
                return f"text of at most {self.max_chars:,} characters"

    def check(self, value: object, *, text: bool) -> Value | None:
        """The value in this parameter's type, or None where none was sent: null and "" are none everywhere.

        text: a number or a truth value may come as text, as multipart fields do. Pictures are left as they came. Raises
        `InvalidField`.
        """
        if value is None or value == "":
            return None
        if text and isinstance(value, str):
            value = self._from_text(value)
        match self.type:
            case Kind.STRING if isinstance(value, str):
                return self._string(value)
            case Kind.BOOLEAN if isinstance(value, bool):
                return value
            case Kind.INTEGER | Kind.NUMBER if isinstance(value, int | float) and not isinstance(value, bool):
                return self._number(value)
            case Kind.IMAGE if isinstance(value, str | bytes):
                return value
        raise self._refusal(value)

    def _from_text(self, value: str) -> object:
        """What a multipart field's text says in this type; itself where it says nothing of the kind."""
        stripped = value.strip()
        match self.type:
            case Kind.BOOLEAN:
                return _TRUTH.get(stripped.lower(), value)
            case Kind.INTEGER if match := _INTEGER.fullmatch(stripped):
                return int(match[1])
            case Kind.NUMBER if _NUMBER.fullmatch(stripped):
                return float(stripped)
        return value

    def _number(self, value: float) -> int | float:
        # Bounds first: an integer may be too large for a float, and NaN is within none.
        if self.minimum is None or self.maximum is None or not self.minimum <= value <= self.maximum:
            raise self._refusal(value)
        if self.type is Kind.NUMBER:
            return float(value)
        if not math.trunc(value) == value:
            raise self._refusal(value)
        return int(value)

    def _string(self, value: str) -> str:
        if self.enum:
            if value not in self.enum:
                raise self._refusal(value)
            return value
        if self.max_chars is None or len(value) > self.max_chars:
            raise self._refusal(value, f"{len(value):,} characters")
        if "\0" in value or not _is_unicode(value):
            raise InvalidField(f"{self.name} contains characters that are not text", field=self.name)
        if self.needed and not value.strip():
            raise InvalidField(f"{self.name} is blank; it must say something", field=self.name)
        return value

    def missing(self) -> InvalidField:
        return InvalidField(f"{self.name} is required: {self.allowed}", field=self.name)

    def _refusal(self, value: object, shown: str | None = None) -> InvalidField:
        return InvalidField(f"{self.name} must be {self.allowed}; got {shown or _shown(value)}", field=self.name)


def shorten(text: str) -> str:
    """For messages: a client's text, or the beginning of it."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def nearest(text: str, among: Iterable[str]) -> str:
    """For messages: the one of these that may have been meant, as the end of a sentence; empty if none is near."""
    near = get_close_matches(text, among, n=1)
    return f"; the nearest is {near[0]}" if near else ""


def _shown(value: object) -> str:
    match value:
        case bytes():
            return f"a file of {len(value):,} bytes"
        case list():
            return "a list"
        case dict():
            return "an object"
        case int() if value.bit_length() > 256:
            return "a number with very many digits"
        case str():
            return json.dumps(shorten(value), ensure_ascii=False)
        case _:
            return json.dumps(value)


def _is_unicode(value: str) -> bool:
    """Half of a surrogate pair can be neither stored nor printed."""
    return not any("\ud800" <= char <= "\udfff" for char in value)
