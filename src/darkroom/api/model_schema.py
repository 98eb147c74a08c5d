"""A model's request as the API's document has it, read off its card."""

from dataclasses import asdict
from typing import Any, Final

from darkroom.catalogue.card import Card
from darkroom.catalogue.parameter import Kind, Parameter

Schema = dict[str, Any]

EXTENSION: Final = "x-darkroom-extension"

PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwAgMAAADcJZSMAAAADFBMVEWHvutGeDz63FoAAAACC2qVAAAAUElEQVR4"
    "2mNgoAdgRuas0j7AwITEZ2JQYEAR4GDgQBVQYGBCNWMqA4P2ASZ0W8gQQAZaq1ahqnjA8A9V4AfDD1SBfwwPGIYyYAylPAhHlgAANLgLJn3tFsIA"
    "AAAASUVORK5CYII="
)
"""The examples' picture: a meadow, 64 × 48."""

PROMPT: Final = "Make it night, with a full moon in place of the sun."

NOT_BLANK: Final = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
NO_NUL: Final = r"^[^\u0000]*$"


def component(card: Card, *, form: bool) -> str:
    """The schema's name: of the JSON body, or of the form."""
    return "".join(part.capitalize() for part in card.slug.split("-")) + ("Form" if form else "Request")


def request_schema(card: Card, *, form: bool) -> Schema:
    """What `Card.check` lets through. form: as multipart/form-data, which has files and no null."""
    return {
        "type": "object",
        "description": card.description,
        "required": [name for name, parameter in card.parameters.items() if parameter.needed],
        "properties": {name: _property(parameter, form=form) for name, parameter in card.parameters.items()},
        "additionalProperties": False,
    }


def examples(card: Card) -> dict[str, Schema]:
    """Requests that can be sent as they are, in JSON: with what must be there, and with everything."""
    needed = {name: _example(parameter) for name, parameter in card.parameters.items() if parameter.needed}
    sampling = card.fast or card.quality
    defaults = {name: p.default for name, p in card.parameters.items() if p.default not in (None, "")}
    pictures = dict.fromkeys(card.pictures, PICTURE)
    everything = defaults | asdict(sampling) | {"seed": 7} | needed | pictures
    return {
        "least": {"summary": "What must be there", "value": needed},
        "everything": {
            "summary": "Every parameter",
            "value": {name: everything[name] for name in card.parameters if name in everything},
        },
    }


def _example(parameter: Parameter) -> str:
    return PICTURE if parameter.type is Kind.IMAGE else PROMPT


def _property(parameter: Parameter, *, form: bool) -> Schema:
    schema = _value(parameter, form=form)
    if not parameter.needed:
        schema = _or_none(schema, form=form)
    schema["description"] = _description(parameter, form=form)
    if parameter.default not in (None, ""):
        schema["default"] = parameter.default
    if parameter.needed and parameter.type is Kind.STRING:
        schema["examples"] = [PROMPT]
    elif form and parameter.type is not Kind.IMAGE:
        # Where there is none, Swagger UI sends one that it makes up.
        schema["examples"] = ["" if parameter.default is None else parameter.default]
    if parameter.extension:
        schema[EXTENSION] = True
    return schema


def _value(parameter: Parameter, *, form: bool) -> Schema:
    match parameter.type:
        case Kind.IMAGE if form:
            return {"type": "string", "format": "binary"}
        case Kind.IMAGE:
            return {"type": "string", "minLength": 1}
        case Kind.BOOLEAN:
            return {"type": "boolean"}
        case Kind.STRING if parameter.enum:
            return {"type": "string", "enum": [*parameter.enum]}
        case Kind.STRING:
            pattern = NOT_BLANK if parameter.needed else NO_NUL
            return {"type": "string", "maxLength": parameter.max_chars, "pattern": pattern}
    return {"type": str(parameter.type), "minimum": parameter.minimum, "maximum": parameter.maximum}


def _or_none(schema: Schema, *, form: bool) -> Schema:
    """Its own kind, or none: "" everywhere, and null, which a form does not have."""
    text: Schema = {"type": "string" if form else ["string", "null"]}
    if schema["type"] == "string" and "enum" not in schema:
        return {name: value for name, value in schema.items() if name != "minLength"} | text
    return {"anyOf": [schema, text | {"maxLength": 0}]}


def _description(parameter: Parameter, *, form: bool) -> str:
    words = [parameter.description]
    if parameter.type is Kind.IMAGE:
        words.append("A file, or what JSON takes." if form else "An http(s) address, a data URL, or base64.")
    if parameter.extension:
        words.append("Darkroom's own: Segmind's API does not have it.")
    return " ".join(words)
