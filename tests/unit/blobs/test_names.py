"""What kept files are called."""

import uuid

import pytest

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import (
    input_name,
    job_of,
    job_prefixes,
    result_name,
    upload_expires_at,
    upload_name,
    uploads_prefix,
)


def test_a_jobs_files_are_found_by_its_id_alone(tmp_path):
    """Deleting a job's prefixes takes its inputs and the results of every fence, and nobody else's files."""
    blobs = Folder(tmp_path)
    mine, other = f"{uuid.uuid4().hex}aa", f"{uuid.uuid4().hex}aa"
    for job_id in (mine, other):
        blobs.put(input_name(job_id, "image_1"), b"x")
        for fence in (1, 2):
            blobs.put(result_name(job_id, fence=fence, extension="webp"), b"x")
    for prefix in job_prefixes(mine):
        blobs.delete(prefix)
    assert [job_of(name) for name, _ in blobs.names()] == [other] * 3


def test_results_of_two_fences_are_two_files():
    """A worker that lost its lease can't write over its successor's result."""
    assert result_name("job1", fence=1, extension="png") != result_name("job1", fence=2, extension="png")


@pytest.mark.parametrize(
    "job_id", ["", "a", "..", "../../etc", "a/b", "a\\b", ".hidden", "-x1", "x--", "é" * 8, "a" * 129]
)
def test_ids_that_can_be_no_folder(job_id):
    """An id that could lead elsewhere is a mistake of the caller's."""
    with pytest.raises(ValueError, match="is not a job's id"):
        input_name(job_id, "image")


@pytest.mark.parametrize("name", ["", "jobs", "jobs/aa/x", "uploads/aa/job1/image", "/jobs/aa/job1/image"])
def test_files_that_are_no_jobs(name):
    """A file outside the jobs' folders belongs to none."""
    with pytest.raises(ValueError, match="is not a job's file"):
        job_of(name)


def test_an_upload_says_how_long_it_is_kept():
    """Its name alone leads to its owner's folder and to its time."""
    name = upload_name("key1", "a.png", expires_at=1000)
    assert name.startswith(uploads_prefix("key1"))
    assert upload_expires_at(name) == 1000


@pytest.mark.parametrize("name", ["", "uploads", "uploads/k/a.png", "uploads/k/x-a.png", "jobs/aa/job1/1-a"])
def test_files_that_are_no_uploads(name):
    """A file outside the uploads has no time of its own."""
    with pytest.raises(ValueError, match="is not an upload"):
        upload_expires_at(name)
