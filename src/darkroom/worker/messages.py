"""What the service and its worker process tell each other: JSON, a message a line, over the worker's stdin and stdout.

Nothing here decides about a job. The ledger does; a message lost costs a second, not a job.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.job import Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Configure:
    """First line to a worker: its name and the whole settings tree, as the service has read it."""

    worker: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wake:
    """A job was queued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """Take no more jobs; give back those that do not end within `grace_s` seconds; then exit."""

    grace_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The engine is loaded and warm. gpus: how many there are on this machine."""

    checkpoint: str
    device: str
    dtype: str
    gpus: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupFailed:
    """The engine can't be loaded; the worker exits."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    """A job entered a stage or finished a step."""

    job_id: str
    stage: Stage
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """The worker holds this job no more: it ended, or went back to the queue."""

    job_id: str


Message = Configure | Wake | Drain | Ready | SetupFailed | Advanced | Released

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Configure, Wake, Drain, Ready, SetupFailed, Advanced, Released)
}


def to_line(message: Message) -> bytes:
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Raises ValueError on anything that is not one of the messages."""
    try:
        record = json.loads(line)
        kind = _KINDS[record.pop("kind")]
        if kind is Advanced:
            record["stage"] = Stage(record["stage"])
        return kind(**record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message: {line!r}") from error
