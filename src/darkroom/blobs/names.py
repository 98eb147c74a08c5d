"""What kept files are called. All of a job's files lie in one folder that its id alone leads to, so that forgetting a
job takes neither a clock nor a list; the two characters above it keep folders small. An upload belongs to no job: its
name says whose it is and how long it is kept."""

import re
from typing import Final

JOBS: Final = "jobs"
UPLOADS: Final = "uploads"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,125}[A-Za-z0-9]{2}")
_NAME = re.compile(rf"{JOBS}/[^/]+/([^/]+)/.+")
_UPLOAD = re.compile(rf"{UPLOADS}/[^/]+/([0-9]+)-[^/]+")


def input_name(job_id: str, field: str) -> str:
    """The picture that came in the parameter `field`, as it came."""
    return f"{_folder(job_id)}{field}"


def result_name(job_id: str, *, fence: int, extension: str) -> str:
    """The picture made under this fence: a worker that lost its lease can't write over its successor's."""
    return f"{_folder(job_id)}result-{fence}.{extension}"


def job_prefixes(job_id: str) -> tuple[str, ...]:
    """What to delete so that nothing of the job is left."""
    return (_folder(job_id),)


def job_of(name: str) -> str:
    """Whose file this is. Raises ValueError for a file that is no job's."""
    if match := _NAME.fullmatch(name):
        return match[1]
    raise ValueError(f"{name!r} is not a job's file")


def uploads_prefix(key_id: str) -> str:
    """The folder of all of a key's uploads."""
    return f"{UPLOADS}/{key_id}/"


def upload_name(key_id: str, file: str, *, expires_at: int) -> str:
    """expires_at: seconds since the epoch."""
    return f"{uploads_prefix(key_id)}{expires_at}-{file}"


def upload_expires_at(name: str) -> int:
    """Seconds since the epoch. Raises ValueError for a file that is no upload."""
    if match := _UPLOAD.fullmatch(name):
        return int(match[1])
    raise ValueError(f"{name!r} is not an upload")


def _folder(job_id: str) -> str:
    """Raises ValueError for an id that can't be a folder's name."""
    if not _ID.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is not a job's id")
    return f"{JOBS}/{job_id[-2:]}/{job_id}/"
