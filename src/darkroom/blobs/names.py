"""What kept files are called. All of a job's files lie in one folder that its id alone leads to, so that forgetting a
job takes neither a clock nor a list; the two characters above it keep folders small."""

import re
from typing import Final

_ROOT: Final = "jobs"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,125}[A-Za-z0-9]{2}")
_NAME = re.compile(rf"{_ROOT}/[^/]+/([^/]+)/.+")


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


def _folder(job_id: str) -> str:
    """Raises ValueError for an id that can't be a folder's name."""
    if not _ID.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is not a job's id")
    return f"{_ROOT}/{job_id[-2:]}/{job_id}/"
