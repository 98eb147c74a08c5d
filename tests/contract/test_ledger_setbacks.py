"""What becomes of jobs that are retried, cancelled, or past their time; and what is told of it afterwards."""

import pytest

from darkroom.errors import UnknownRequest
from darkroom.job import Lease, State
from darkroom.ledger.contract import MAX_ATTEMPTS, Overdue
from ledgers import CRASH, PROGRESS, RESULT, START, ask, key_named, kinds, running, snapshot

DAY_S = 86_400.0


class TestRetrying:
    def test_a_crashed_job_is_tried_again_and_then_fails(self, ledger, key):
        """Every retry keeps price and place; after the last attempt the job fails with the last cause, refunded."""
        ledger.accept(ask(key, job_id="j"))
        ledger.accept(ask(key, job_id="behind"))
        for attempt in range(1, MAX_ATTEMPTS):
            job, lease = ledger.claim("w1")
            assert (job.id, job.attempt) == ("j", attempt)
            assert ledger.retry(lease, CRASH).state is State.QUEUED
            assert key_named(ledger, "studio").held_micro == 2000
        job, lease = ledger.claim("w1")
        assert (job.id, job.attempt) == ("j", MAX_ATTEMPTS)
        ended = ledger.retry(lease, CRASH)
        assert (ended.state, ended.failure, ended.remaining_micro) == (State.FAILED, CRASH, 999_000)
        assert ledger.claim("w1")[0].id == "behind"

    def test_giving_back_does_not_count(self, ledger, key):
        """A job given back as often as you like still has all its attempts."""
        ledger.accept(ask(key, job_id="j"))
        for _ in range(2 * MAX_ATTEMPTS):
            job, lease = ledger.claim("w1")
            assert job.attempt == 1
            assert ledger.give_back(lease).attempt == 0
        assert job.fence == 2 * MAX_ATTEMPTS

    def test_a_silent_worker_loses_its_jobs(self, ledger, clock, key):
        """Each reap is an attempt lost; the last one ends the job with code worker_lost, saying how many there were."""
        ledger.accept(ask(key, job_id="j"))
        for _ in range(MAX_ATTEMPTS):
            ledger.claim("w1")
            clock.advance(30)
            (job,) = ledger.reap(ledger.overdue())
        assert job == ledger.job("j")
        assert (job.state, job.failure.code, job.remaining_micro) == (State.FAILED, "worker_lost", 1_000_000)
        assert "3 attempts" in job.failure.message
        assert ledger.reap(ledger.overdue()) == []

    def test_what_has_run_out_is_told_before_it_is_taken(self, ledger, clock, key):
        """Being told of a lease takes nothing; a lease is told with its times, as long as it has run out."""
        _, lease = running(ledger, key, job_id="j")
        clock.advance(29.9)
        assert ledger.overdue() == frozenset()
        clock.advance(0.1)
        overdue = Overdue(job_id="j", fence=lease.fence, leased_at=START, lease_until=START + 30)
        assert ledger.overdue() == {overdue}
        assert ledger.job("j").state is State.PROCESSING
        assert [job.id for job in ledger.reap({overdue})] == ["j"]
        assert ledger.overdue() == frozenset()

    def test_only_leases_named_are_taken(self, ledger, clock, key):
        """Of the jobs whose lease has run out, those not named stay with their workers."""
        for job_id in ("a", "b"):
            running(ledger, key, job_id=job_id)
        clock.advance(30)
        (named,) = (lease for lease in ledger.overdue() if lease.job_id == "b")
        assert ledger.reap([]) == []
        assert [job.id for job in ledger.reap([named])] == ["b"]
        assert ledger.job("a").state is State.PROCESSING

    @pytest.mark.parametrize("after_s", [0, 30, DAY_S], ids=["good", "overdue again", "long overdue again"])
    def test_a_lease_prolonged_since_is_not_taken(self, ledger, clock, key, after_s):
        """A worker that has given a sign of life since keeps its job, even if the new lease has run out as well."""
        _, lease = running(ledger, key, job_id="j")
        clock.advance(30)
        overdue = ledger.overdue()
        assert ledger.heartbeat("w1", [lease]) == frozenset()
        clock.advance(after_s)
        assert ledger.reap(overdue) == []
        assert ledger.complete(lease, RESULT).state is State.COMPLETED

    def test_the_next_holder_is_not_taken_for_the_last(self, ledger, clock, key):
        """A lease that another has had since is nobody's: whoever holds the job now keeps it."""
        _, lease = running(ledger, key, job_id="j")
        clock.advance(30)
        overdue = ledger.overdue()
        ledger.give_back(lease)
        ledger.claim("w2")
        clock.advance(30)
        assert ledger.reap(overdue) == []

    def test_a_dead_worker_is_released_at_once(self, ledger, key):
        """Release puts back or ends all of that worker's jobs and no other's, without waiting for the lease."""
        for job_id in ("a", "b", "c"):
            ledger.accept(ask(key, job_id=job_id))
        ledger.claim("dead")
        ledger.claim("alive")
        ledger.claim("dead")
        released = ledger.release("dead", CRASH)
        assert [(job.id, job.state) for job in released] == [("a", State.QUEUED), ("c", State.QUEUED)]
        assert ledger.job("b").state is State.PROCESSING
        assert ledger.release("dead", CRASH) == []

    def test_a_worker_that_was_called_off_costs_no_attempt(self, ledger, key):
        """However often: its jobs had no part in its end."""
        ledger.accept(ask(key, job_id="a"))
        for _ in range(MAX_ATTEMPTS + 1):
            ledger.claim("w")
            (job,) = ledger.release("w", None)
            assert (job.state, job.attempt) == (State.QUEUED, 0)

    def test_release_ends_a_job_at_its_last_attempt(self, ledger, key):
        """A job that killed three workers fails with the cause given."""
        ledger.accept(ask(key))
        for _ in range(MAX_ATTEMPTS):
            ledger.claim("w1")
            (job,) = ledger.release("w1", CRASH)
        assert (job.state, job.failure) == (State.FAILED, CRASH)


class TestCancel:
    def test_a_queued_job_ends_at_once(self, ledger, key):
        """Cancelling what waits ends it FAILED with code cancelled, refunded, and nobody claims it."""
        ledger.accept(ask(key, job_id="j", price_micro=400_000))
        job = ledger.cancel("j")
        assert job == ledger.job("j")
        assert (job.state, job.failure.code, job.remaining_micro) == (State.FAILED, "cancelled", 1_000_000)
        assert job.cancel_requested
        assert key_named(ledger, "studio") == key
        assert ledger.claim("w1") is None

    def test_a_running_job_is_asked_to_stop(self, ledger, key):
        """Cancelling what runs is told to its worker by progress, and the job is still its worker's."""
        _, lease = running(ledger, key, job_id="j")
        assert ledger.cancel("j").cancel_requested
        assert ledger.cancel("j").state is State.PROCESSING
        assert ledger.progress(lease, PROGRESS) is True
        assert kinds(ledger, "j") == ["accepted", "claimed", "cancel_requested"]

    def test_work_done_before_the_cancel_arrived_counts(self, ledger, key):
        """A job that completes although it was to be cancelled is completed and charged."""
        _, lease = running(ledger, key, job_id="j")
        ledger.cancel("j")
        assert ledger.complete(lease, RESULT).state is State.COMPLETED
        assert key_named(ledger, "studio").spent_micro == 1000

    def test_an_ended_job_is_left_alone(self, ledger, key):
        """Cancelling what has ended changes nothing."""
        _, lease = running(ledger, key, job_id="j")
        ledger.complete(lease, RESULT)
        before = snapshot(ledger, "j")
        assert ledger.cancel("j") == ledger.job("j")
        assert snapshot(ledger, "j") == before

    @pytest.mark.parametrize("way", ["retry", "give_back", "release", "reap"])
    def test_a_job_to_be_cancelled_is_not_queued_again(self, ledger, clock, key, way):
        """However its worker lets go of it, a job to be cancelled ends cancelled and refunded."""
        _, lease = running(ledger, key, job_id="j")
        ledger.cancel("j")
        clock.advance(30)
        {
            "retry": lambda: ledger.retry(lease, CRASH),
            "give_back": lambda: ledger.give_back(lease),
            "release": lambda: ledger.release("w1", CRASH),
            "reap": lambda: ledger.reap(ledger.overdue()),
        }[way]()
        job = ledger.job("j")
        assert (job.state, job.failure.code, job.remaining_micro) == (State.FAILED, "cancelled", 1_000_000)

    def test_cancelling_what_is_not_there(self, ledger, clock, key):
        """An unknown and an expired job are both unknown."""
        with pytest.raises(UnknownRequest):
            ledger.cancel("nowhere")
        ledger.accept(ask(key, job_id="j"))
        ledger.cancel("j")
        clock.advance(3600)
        with pytest.raises(UnknownRequest):
            ledger.cancel("j")


class TestExpiry:
    def test_an_ended_job_is_known_for_its_time(self, ledger, clock, key):
        """A job is found until its retention is over, and then not, while its files are still the ledger's."""
        _, lease = running(ledger, key, job_id="j")
        ledger.complete(lease, RESULT)
        clock.advance(3599)
        assert ledger.job("j").result == RESULT
        assert ledger.expired() == []
        clock.advance(1)
        with pytest.raises(UnknownRequest, match="Request j not found"):
            ledger.job("j")
        assert ledger.expired() == ["j"]
        assert ledger.known(["j"]) == {"j"}

    def test_jobs_that_have_not_ended_never_expire(self, ledger, clock, key):
        """However long a job waits, it is not forgotten, even if asked to be."""
        running(ledger, key, job_id="running")
        ledger.accept(ask(key, job_id="queued"))
        clock.advance(1000 * DAY_S)
        assert ledger.expired() == []
        ledger.forget(["running", "queued"])
        assert (ledger.job("running").state, ledger.job("queued").state) == (State.PROCESSING, State.QUEUED)
        assert kinds(ledger, "queued") == ["accepted"]

    def test_forgetting_leaves_the_credits(self, ledger, key):
        """A forgotten job is gone with its events, and what it cost stays spent."""
        _, lease = running(ledger, key, job_id="j")
        ledger.complete(lease, RESULT)
        before = ledger.keys()
        ledger.forget(["j", "nowhere"])
        assert ledger.known(["j", "nowhere"]) == set()
        assert ledger.events("j") == []
        assert ledger.keys() == before
        with pytest.raises(UnknownRequest):
            ledger.job("j")

    def test_the_oldest_expire_first(self, ledger, clock, key):
        """`expired` lists by expiry, no more than asked for."""
        for job_id in ("a", "b", "c"):
            ledger.accept(ask(key, job_id=job_id))
        for job_id in ("b", "c", "a"):
            ledger.cancel(job_id)
            clock.advance(1)
        clock.advance(3600)
        assert ledger.expired() == ["b", "c", "a"]
        assert ledger.expired(2) == ["b", "c"]

    def test_counts_have_every_state(self, ledger, key):
        """Counts are by state, with zeros."""
        assert ledger.counts() == dict.fromkeys(State, 0)
        for _ in range(4):
            ledger.accept(ask(key))
        _, done = ledger.claim("w1")
        _, failed = ledger.claim("w1")
        ledger.claim("w1")
        ledger.complete(done, RESULT)
        ledger.fail(failed, CRASH)
        assert ledger.counts() == dict.fromkeys(State, 1)


class TestEvents:
    def test_every_transition_writes_one(self, ledger, clock, key):
        """The events tell a job's whole story: when, what, at which attempt, and why."""
        ledger.accept(ask(key, job_id="j", price_micro=700))
        steps = [
            lambda: ledger.claim("w1"),
            lambda: ledger.retry(Lease(job_id="j", attempt=1, fence=1), CRASH),
            lambda: ledger.claim("w2"),
            lambda: ledger.give_back(Lease(job_id="j", attempt=2, fence=2)),
            lambda: ledger.claim("w3"),
            lambda: ledger.complete(Lease(job_id="j", attempt=2, fence=3), RESULT),
        ]
        for step in steps:
            clock.advance(1)
            step()
        crash = {"code": CRASH.code, "message": CRASH.message, "field": None}
        assert [(event.at - START, event.kind, event.attempt, event.detail) for event in ledger.events("j")] == [
            (0, "accepted", 0, {"held_micro": 700}),
            (1, "claimed", 1, {"worker": "w1", "fence": 1}),
            (2, "retried", 1, {"worker": "w1", "failure": crash}),
            (3, "claimed", 2, {"worker": "w2", "fence": 2}),
            (4, "given_back", 2, {"worker": "w2"}),
            (5, "claimed", 2, {"worker": "w3", "fence": 3}),
            (6, "completed", 2, {"charged_micro": 700}),
        ]

    def test_a_failure_tells_its_cause(self, ledger, key):
        """The last event of a failed job has the failure and what was given back."""
        _, lease = running(ledger, key, job_id="j", price_micro=700)
        ledger.fail(lease, CRASH)
        assert ledger.events("j")[-1].detail == {
            "returned_micro": 700,
            "failure": {"code": CRASH.code, "message": CRASH.message, "field": None},
        }

    def test_progress_and_heartbeats_are_no_events(self, ledger, key):
        """Only transitions are kept: a long job does not fill the ledger."""
        _, lease = running(ledger, key, job_id="j")
        ledger.progress(lease, PROGRESS)
        ledger.heartbeat("w1", [lease])
        assert kinds(ledger, "j") == ["accepted", "claimed"]


class TestClockSetBack:
    def test_a_job_still_ends(self, ledger, clock, key):
        """Where the clock is set back a day at every transition, jobs still run, end, and have ordered times."""
        ledger.accept(ask(key, job_id="j"))
        clock.advance(-DAY_S)
        _, lease = ledger.claim("w1")
        clock.advance(-DAY_S)
        ledger.retry(lease, CRASH)
        clock.advance(-DAY_S)
        _, lease = ledger.claim("w1")
        clock.advance(-DAY_S)
        job = ledger.complete(lease, RESULT)
        assert job.created_at <= job.started_at <= job.ended_at <= job.expires_at
        times = [event.at for event in ledger.events("j")]
        assert times == sorted(times)

    def test_a_dead_workers_job_does_not_wait_for_the_old_time(self, ledger, clock, key):
        """After the clock was set back a day, a silent worker still loses its job within one lease."""
        running(ledger, key, job_id="j")
        clock.advance(-DAY_S)
        assert ledger.overdue() == frozenset()
        clock.advance(30)
        assert [job.id for job in ledger.reap(ledger.overdue())] == ["j"]

    def test_a_revoked_key_stays_listed(self, ledger, clock, key):
        """A key can be revoked although the clock was set back since it was made."""
        clock.advance(-DAY_S)
        assert ledger.revoke_key("studio").revoked_at == key.created_at
