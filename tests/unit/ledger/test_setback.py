"""What becomes of a job that its worker did not end."""

from dataclasses import replace

import pytest

from darkroom.job import Job, State
from darkroom.ledger.contract import MAX_ATTEMPTS
from darkroom.ledger.setback import CANCELLED, ending, worker_lost
from ledgers import CRASH, make_edit

RUNNING = Job(
    id="j",
    key_id="k",
    slug="qwen-image-edit-plus",
    edit=make_edit(),
    price_micro=1000,
    state=State.PROCESSING,
    attempt=1,
    fence=1,
    cancel_requested=False,
    progress=None,
    created_at=1.0,
    started_at=2.0,
    ended_at=None,
    expires_at=None,
    remaining_micro=None,
    result=None,
    failure=None,
)


@pytest.mark.parametrize(
    ("attempt", "cancel_requested", "failure", "expected"),
    [
        (1, False, CRASH, None),
        (MAX_ATTEMPTS - 1, False, CRASH, None),
        (MAX_ATTEMPTS, False, CRASH, CRASH),
        (MAX_ATTEMPTS, False, None, None),
        (1, True, CRASH, CANCELLED),
        (1, True, None, CANCELLED),
        (MAX_ATTEMPTS, True, CRASH, CANCELLED),
    ],
)
def test_a_job_is_queued_again_until_it_may_not_be(attempt, cancel_requested, failure, expected):
    """A cancel ends it, the last attempt ends it if it counts, and else it is queued again."""
    job = replace(RUNNING, attempt=attempt, cancel_requested=cancel_requested)
    assert ending(job, failure) == expected


def test_a_lost_worker_says_how_often_it_was_tried():
    """The message counts the attempts in words a client understands."""
    assert worker_lost(RUNNING).message == "The worker went silent; given up after 1 attempt"
    assert worker_lost(replace(RUNNING, attempt=3)).message.endswith("after 3 attempts")
