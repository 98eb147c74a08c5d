"""The JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from darkroom.errors import BadCheckpoint


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `BadCheckpoint` that names the file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} must hold a JSON object")
    return value
