"""What becomes of a running job that its worker did not end."""

from darkroom.errors import JobCancelled, WorkerLost
from darkroom.job import Failure, Job
from darkroom.ledger.contract import MAX_ATTEMPTS

CANCELLED = Failure.of(JobCancelled("The request was cancelled"))


def worker_lost(job: Job) -> Failure:
    """Why a job whose lease ran out goes no further."""
    attempts = "1 attempt" if job.attempt == 1 else f"{job.attempt} attempts"
    return Failure.of(WorkerLost(f"The worker went silent; given up after {attempts}"))


def ending(job: Job, failure: Failure | None) -> Failure | None:
    """How the job ends FAILED, or None: it is queued again. `failure` None: the attempt doesn't count."""
    if job.cancel_requested:
        return CANCELLED
    if failure is not None and job.attempt >= MAX_ATTEMPTS:
        return failure
    return None
