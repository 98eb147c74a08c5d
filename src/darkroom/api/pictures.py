"""The finished picture of a job, out of the blob store.

All of it blocks for the disk, and raises `UnknownRequest` where the result has expired since `job` was read.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.blobs.folder import Folder
from darkroom.errors import UnknownRequest
from darkroom.job import Job


def picture_path(job: Job, blobs: Folder) -> Path:
    with _blob(job) as name:
        return blobs.path(name)


def picture_bytes(job: Job, blobs: Folder) -> bytes:
    with _blob(job) as name:
        return blobs.get(name)


def picture_base64(job: Job, blobs: Folder) -> str:
    return base64.b64encode(picture_bytes(job, blobs)).decode()


@contextmanager
def _blob(job: Job) -> Iterator[str]:
    if job.result is None:
        raise UnknownRequest(job.id)
    try:
        yield job.result.blob
    except FileNotFoundError as error:
        raise UnknownRequest(job.id) from error
