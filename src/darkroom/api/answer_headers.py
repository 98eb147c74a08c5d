"""The answers' headers, as the API's document has them."""

from typing import Any

from darkroom.api.errors import METHODS

Schema = dict[str, Any]

RATE_LIMIT = ("x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset-at-utc")

_METHOD = f"({'|'.join(METHODS)})"
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number", "minimum": 0}

_KNOWN: dict[str, tuple[str, Schema]] = {
    "x-request-id": ("The request's id; the server's log has it too.", {"type": "string", "pattern": "^[0-9a-f]{32}$"}),
    "x-generation-time": ("Seconds of work on the picture.", _NUMBER),
    "x-cost": ("Credits charged.", _NUMBER),
    "x-remaining-credits": ("The key's balance just after.", _NUMBER),
    "x-seed-value": ("The seed the picture was made with.", _COUNT),
    "x-output-metadata": ("JSON: the picture's height and width, and how many there are (samples).", _TEXT),
    "x-rate-limit-limit": ("Requests a minute the key may make; not there for a key without a limit.", _COUNT),
    "x-rate-limit-remaining": ("Requests it could make now, at once.", _COUNT),
    "x-rate-limit-reset-at-utc": ("When that is the full limit again.", {"type": "string", "format": "date-time"}),
    "retry-after": ("Seconds until the next request would be taken.", {"type": "integer", "minimum": 1}),
    "www-authenticate": ("How to authenticate.", {"type": "string", "const": "Bearer"}),
    "allow": ("The path's methods.", {"type": "string", "pattern": f"^{_METHOD}(, {_METHOD})*$"}),
    "content-range": (
        "Which bytes these are, of how many.",
        {"type": "string", "pattern": r"^bytes (\*|[0-9]+-[0-9]+)/[0-9]+$"},
    ),
    "content-length": ("How many bytes follow.", _COUNT),
    "content-disposition": ("What to save it as.", _TEXT),
    "accept-ranges": ("Range is understood.", {"type": "string", "const": "bytes"}),
    "last-modified": ("When it was made.", _TEXT),
    "etag": ("Names these bytes, for If-None-Match and If-Range.", {"type": "string", "pattern": '^".+"$'}),
    "cache-control": ("For how long it may be kept.", _TEXT),
    "x-accel-buffering": ("Proxies are to pass on at once what comes.", {"type": "string", "const": "no"}),
    "x-content-type-options": ("It is what its type says.", {"type": "string", "const": "nosniff"}),
}


def headers(*names: str, required: bool = True) -> dict[str, Schema]:
    """An answer's `headers`. required: they are always there."""
    return {name: {"$ref": f"#/components/headers/{_component(name, required=required)}"} for name in names}


def components() -> dict[str, Schema]:
    """components/headers: what `headers` refers to."""
    return {
        _component(name, required=required): {"description": description, "required": required, "schema": schema}
        for name, (description, schema) in _KNOWN.items()
        for required in (True, False)
    }


def _component(name: str, *, required: bool) -> str:
    return name if required else f"{name}-sometimes"
