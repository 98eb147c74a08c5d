"""One parameter: what may be sent as it."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.catalogue.parameter import SHOWN_CHARS, Kind, Parameter
from darkroom.errors import InvalidField


def parameter(kind, **facts):
    bounds = {"minimum": -1, "maximum": 100} if kind in (Kind.INTEGER, Kind.NUMBER) else {}
    text = {"max_chars": 20} if kind is Kind.STRING and "enum" not in facts else {}
    basic = {"name": "p", "description": "d", "required": False, "needed": False}
    return Parameter(type=kind, **(basic | bounds | text | facts))


STRING, INTEGER, NUMBER, BOOLEAN, IMAGE = (parameter(kind) for kind in Kind)
FORMAT = parameter(Kind.STRING, enum=("png", "webp"))
ALL = (STRING, INTEGER, NUMBER, BOOLEAN, IMAGE, FORMAT)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("value", [None, ""])
def test_null_and_empty_are_none(kind, value, text):
    """Null and "" mean that nothing was sent, for every type."""
    assert kind.check(value, text=text) is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (STRING, " kept as it is ", " kept as it is "),
        (STRING, "镜头" * 10, "镜头" * 10),
        (FORMAT, "png", "png"),
        (INTEGER, 0, 0),
        (INTEGER, -1, -1),
        (INTEGER, 100, 100),
        (INTEGER, 8.0, 8),
        (NUMBER, 4, 4.0),
        (NUMBER, 0.5, 0.5),
        (BOOLEAN, False, False),
        (BOOLEAN, True, True),
        (IMAGE, "https://example.org/a.jpg", "https://example.org/a.jpg"),
        (IMAGE, b"\xff\xd8", b"\xff\xd8"),
        (IMAGE, b"", b""),
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_good_values(kind, value, expected, text):
    """What is of the type comes back in it: a whole float as an integer, an integer as a number."""
    found = kind.check(value, text=text)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (INTEGER, 101, "p must be a whole number from -1 to 100; got 101"),
        (INTEGER, -2, "got -2"),
        (INTEGER, 7.5, "got 7.5"),
        (INTEGER, True, "got true"),
        (INTEGER, "8", 'got "8"'),
        (INTEGER, 10**400, "got a number with very many digits"),
        (INTEGER, math.nan, "got NaN"),
        (INTEGER, math.inf, "got Infinity"),
        (INTEGER, [1], "got a list"),
        (INTEGER, b"8", "got a file of 1 bytes"),
        (NUMBER, 100.5, "p must be a number from -1 to 100; got 100.5"),
        (NUMBER, math.nan, "got NaN"),
        (NUMBER, False, "got false"),
        (NUMBER, {"a": 1}, "got an object"),
        (BOOLEAN, 1, "p must be true or false; got 1"),
        (BOOLEAN, "true", 'got "true"'),
        (STRING, 5, "p must be text of at most 20 characters; got 5"),
        (STRING, b"file", "got a file of 4 bytes"),
        (STRING, "x" * 21, "got 21 characters"),
        (STRING, "a\0b", "characters that are not text"),
        (STRING, "\ud800", "characters that are not text"),
        (FORMAT, "gif", 'p must be one of png, webp; got "gif"'),
        (FORMAT, "PNG", 'got "PNG"'),
        (FORMAT, "x" * 500, f'got "{"x" * SHOWN_CHARS}…"'),
        (IMAGE, 5, "p must be a picture: an http(s) address, a data URL, base64, or a multipart file; got 5"),
        (IMAGE, ["a"], "got a list"),
    ],
)
def test_bad_values(kind, value, message):
    """A refusal names the field, what is allowed and what came, however long or odd that was."""
    with pytest.raises(InvalidField) as caught:
        kind.check(value, text=False)
    assert message in caught.value.message
    assert caught.value.field == "p"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (INTEGER, "8", 8),
        (INTEGER, " -1 ", -1),
        (INTEGER, "8.0", 8),
        (NUMBER, "4", 4.0),
        (NUMBER, "+4.5", 4.5),
        (NUMBER, "1e1", 10.0),
        (BOOLEAN, "true", True),
        (BOOLEAN, "False", False),
        (BOOLEAN, "1", True),
        (BOOLEAN, "0", False),
        (STRING, "8", "8"),
    ],
)
def test_text_of_a_form(kind, value, expected):
    """In a multipart field numbers and truth values are text."""
    found = kind.check(value, text=True)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INTEGER, "8.5"),
        (INTEGER, "1_0"),
        (INTEGER, "٨"),
        (INTEGER, "0x8"),
        (INTEGER, "9" * 5000),
        (INTEGER, "101"),
        (NUMBER, "nan"),
        (NUMBER, "inf"),
        (NUMBER, "1e999"),
        (NUMBER, "four"),
        (BOOLEAN, "yes"),
        (BOOLEAN, "2"),
    ],
)
def test_text_that_says_nothing_of_the_kind(kind, value):
    """Text is taken for a number or a truth value only where it plainly is one, within the bounds."""
    with pytest.raises(InvalidField):
        kind.check(value, text=True)


@pytest.mark.parametrize("value", [" ", "\n\t", "\u3000"])
def test_blank_text(value):
    """A needed text must say something; another may be a space, as a negative prompt is."""
    assert STRING.check(value, text=False) == value
    with pytest.raises(InvalidField, match="p is blank"):
        parameter(Kind.STRING, needed=True).check(value, text=False)


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.booleans())
def test_any_json_is_checked_or_refused(value, text):
    """Whatever JSON can say, the outcome is a value within the card's rules or a refusal that names the field."""
    for kind in ALL:
        try:
            found = kind.check(value, text=text)
        except InvalidField as error:
            refused = error.field
            assert refused == "p"
        else:
            assert found is None or json.loads(json.dumps(found)) == found
            if kind in (INTEGER, NUMBER) and found is not None:
                assert -1 <= found <= 100
