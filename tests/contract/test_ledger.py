"""What `ledger/contract.py` promises, held against every ledger there is."""

import pytest

from darkroom.errors import (
    BadSetting,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidKey,
    LeaseLost,
    RateLimited,
    UnknownRequest,
)
from darkroom.job import Lease, State
from darkroom.ledger.contract import Idempotency
from ledgers import CRASH, PROGRESS, RESULT, START, ask, key_named, make_edit, make_key, running, snapshot

DAY_S = 86_400.0


class TestKeys:
    def test_a_key_is_found_by_its_digest(self, ledger):
        """A new key is kept as it was given, and found by its digest alone."""
        made = ledger.create_key(
            name="studio", digest="abc", granted_micro=5, rate_per_minute=60, models=["qwen-image-edit-plus"]
        )
        assert ledger.find_key("abc") == made
        assert ledger.find_key("abd") is None
        assert (made.name, made.granted_micro, made.balance_micro, made.held_micro, made.spent_micro) == (
            "studio", 5, 5, 0, 0,
        )  # fmt: skip
        assert (made.rate_per_minute, made.models) == (60, ("qwen-image-edit-plus",))
        assert (made.created_at, made.revoked_at) == (START, None)

    def test_no_models_is_not_all_models(self, ledger):
        """An empty list of models allows none, where None allows all."""
        assert make_key(ledger, "none", models=[]).models == ()
        assert make_key(ledger, "all", models=None).models is None

    def test_a_revoked_key_is_not_found(self, ledger, clock):
        """Revoking takes a key out of use, keeps it in the list, and frees its name."""
        first = ledger.create_key(name="studio", digest="abc", granted_micro=5)
        clock.advance(10)
        revoked = ledger.revoke_key("studio")
        assert (revoked.id, revoked.revoked_at) == (first.id, START + 10)
        assert ledger.find_key("abc") is None
        second = make_key(ledger, "studio")
        listed = ledger.keys()
        assert [key.id for key in listed] == [first.id, second.id]

    def test_a_live_name_is_taken_once(self, ledger, key):
        """A second live key of the same name is refused with the remedy."""
        with pytest.raises(BadSetting, match=r"'studio' already: revoke it first, or choose another name"):
            make_key(ledger, "studio")
        assert ledger.keys() == [key]

    def test_a_secret_is_taken_once(self, ledger):
        """A digest can't belong to two keys, not even to a revoked one."""
        ledger.create_key(name="a", digest="abc", granted_micro=5)
        ledger.revoke_key("a")
        with pytest.raises(BadSetting, match="create the key again"):
            ledger.create_key(name="b", digest="abc", granted_micro=5)

    @pytest.mark.parametrize(
        ("settings", "named"),
        [({"granted_micro": -1}, "credits"), ({"granted_micro": 2**63}, "credits"), ({"rate_per_minute": 0}, "rate")],
    )
    def test_a_key_with_an_impossible_setting_is_refused(self, ledger, settings, named):
        """Credits and rate outside their bounds are refused by name."""
        with pytest.raises(BadSetting, match=named):
            make_key(ledger, **settings)
        with pytest.raises(BadSetting, match="name"):
            make_key(ledger, name="")

    def test_revoking_what_is_not_there(self, ledger):
        """A name without a live key is refused, also the second time."""
        make_key(ledger, "studio")
        ledger.revoke_key("studio")
        with pytest.raises(BadSetting, match="no live key named 'studio'"):
            ledger.revoke_key("studio")


class TestAccept:
    def test_a_job_is_queued_with_its_price_held(self, ledger, key):
        """Accepting keeps the whole job, holds its price, and tells what the key can still spend."""
        accepted = ledger.accept(ask(key, job_id="j", price_micro=400_000))
        job = ledger.job("j")
        assert accepted.job == job
        assert (accepted.balance_micro, accepted.quota, accepted.replayed) == (600_000, None, False)
        assert (job.key_id, job.slug, job.edit, job.price_micro) == (
            key.id, "qwen-image-edit-plus", make_edit(), 400_000,
        )  # fmt: skip
        assert (job.state, job.attempt, job.fence, job.cancel_requested) == (State.QUEUED, 0, 0, False)
        assert (job.created_at, job.started_at, job.ended_at, job.expires_at) == (START, None, None, None)
        assert (job.progress, job.result, job.failure, job.remaining_micro) == (None, None, None, None)
        held = key_named(ledger, "studio")
        assert (held.balance_micro, held.held_micro, held.spent_micro) == (600_000, 400_000, 0)

    @pytest.mark.parametrize("resolve_s", [None, 0.0, 1.25])
    def test_what_came_before_the_job_is_kept_with_it(self, ledger, key, resolve_s):
        """How long resolving its LoRAs took is the job's to the end, told apart from not having had any."""
        assert ledger.accept(ask(key, job_id="j", resolve_s=resolve_s)).job.resolve_s == resolve_s
        _, lease = ledger.claim("w1")
        assert ledger.complete(lease, RESULT).resolve_s == ledger.job("j").resolve_s == resolve_s

    def test_credits_never_go_below_zero(self, ledger, key):
        """A job dearer than the balance is refused with both figures, and nothing is kept."""
        ledger.accept(ask(key, job_id="j", price_micro=400_000))
        before = snapshot(ledger, "j")
        with pytest.raises(InsufficientCredits, match=r"balance is 0\.6, this request needs 0\.600001"):
            ledger.accept(ask(key, job_id="k", price_micro=600_001))
        assert snapshot(ledger, "j") == before
        with pytest.raises(UnknownRequest):
            ledger.job("k")
        assert ledger.accept(ask(key, price_micro=600_000)).balance_micro == 0

    def test_a_free_job_needs_no_credits(self, ledger):
        """A price of zero is accepted on an empty balance."""
        assert ledger.accept(ask(make_key(ledger, "poor", granted_micro=0), price_micro=0)).balance_micro == 0

    def test_a_revoked_key_submits_nothing_but_its_jobs_run(self, ledger, key):
        """After revoking, new jobs are refused and accepted ones still run and are charged."""
        ledger.accept(ask(key, job_id="j"))
        ledger.revoke_key("studio")
        with pytest.raises(InvalidKey):
            ledger.accept(ask(key))
        _, lease = ledger.claim("w1")
        assert ledger.complete(lease, RESULT).state is State.COMPLETED
        assert key_named(ledger, "studio").spent_micro == 1000

    def test_the_same_idempotency_name_gives_the_first_job(self, ledger):
        """A repeated request gets the first job back as it is now, and neither credits nor rate are touched."""
        key = make_key(ledger, rate_per_minute=2)
        first = ledger.accept(ask(key, job_id="j", idempotency=("order 1", "d")))
        ledger.claim("w1")
        before = snapshot(ledger, "j")
        for _ in range(5):
            again = ledger.accept(ask(key, job_id="k", price_micro=5000, idempotency=("order 1", "d")))
            assert again.replayed
            assert again.job == ledger.job("j")
            assert again.job.state is State.PROCESSING
            assert (again.balance_micro, again.quota) == (first.balance_micro, first.quota)
        assert snapshot(ledger, "j") == before
        assert ledger.known(["j", "k"]) == {"j"}

    def test_the_same_idempotency_name_for_something_else_is_refused(self, ledger, key):
        """Another digest under a used name is a conflict that names it, and nothing is kept."""
        ledger.accept(ask(key, job_id="j", idempotency=("order 1", "d")))
        before = snapshot(ledger, "j")
        with pytest.raises(IdempotencyConflict, match="'order 1'"):
            ledger.accept(ask(key, idempotency=("order 1", "e")))
        assert snapshot(ledger, "j") == before

    def test_a_replay_can_be_asked_for_ahead(self, ledger, key):
        """An idempotency name gives its job, nothing, or a refusal before anything else of a request is known."""
        ahead = Idempotency(name="order 1", digest="d")
        assert ledger.replay(key.id, ahead) is None
        first = ledger.accept(ask(key, job_id="j", idempotency=("order 1", "d")))
        again = ledger.replay(key.id, ahead)
        assert (again.job, again.replayed, again.balance_micro) == (first.job, True, first.balance_micro)
        with pytest.raises(IdempotencyConflict):
            ledger.replay(key.id, Idempotency(name="order 1", digest="e"))

    def test_idempotency_names_belong_to_a_key(self, ledger, key):
        """Two keys may use the same name for two jobs."""
        other = make_key(ledger, "other")
        ledger.accept(ask(key, job_id="j", idempotency=("order 1", "d")))
        assert ledger.accept(ask(other, job_id="k", idempotency=("order 1", "e"))).job.id == "k"

    def test_an_idempotency_name_ends_with_its_job(self, ledger, clock, key):
        """Once its job has expired, swept or not, a name is free again."""
        _, lease = running(ledger, key, job_id="j", idempotency=("order 1", "d"))
        ledger.complete(lease, RESULT)
        clock.advance(3600)
        accepted = ledger.accept(ask(key, job_id="k", idempotency=("order 1", "e")))
        assert (accepted.job.id, accepted.replayed) == ("k", False)
        assert ledger.expired() == ["j"]

    def test_a_refused_request_can_be_repeated_under_its_name(self, ledger):
        """A request that was refused has not used up its idempotency name, nor the key's rate."""
        key = make_key(ledger, granted_micro=10, rate_per_minute=1)
        with pytest.raises(InsufficientCredits):
            ledger.accept(ask(key, price_micro=11, idempotency=("order 1", "d")))
        assert not ledger.accept(ask(key, price_micro=10, idempotency=("order 1", "e"))).replayed

    def test_the_rate_holds(self, ledger, clock):
        """A key makes its limit at once, is then told how long to wait, and may go on exactly then."""
        key = make_key(ledger, rate_per_minute=3)
        quotas = [ledger.accept(ask(key)).quota for _ in range(3)]
        assert [(quota.limit, quota.remaining, quota.reset_at - START) for quota in quotas] == [
            (3, 2, 20), (3, 1, 40), (3, 0, 60),
        ]  # fmt: skip
        before = snapshot(ledger)
        with pytest.raises(RateLimited) as refused:
            ledger.accept(ask(key))
        assert (refused.value.limit, refused.value.retry_after_s) == (3, 20)
        assert snapshot(ledger) == before
        clock.advance(20)
        assert ledger.accept(ask(key)).quota.remaining == 0

    def test_each_key_has_its_own_rate(self, ledger):
        """One key at its limit does not slow another."""
        first, second = make_key(ledger, "a", rate_per_minute=1), make_key(ledger, "b", rate_per_minute=1)
        ledger.accept(ask(first))
        assert ledger.accept(ask(second)).quota.remaining == 0

    def test_a_clock_set_back_locks_no_key_out(self, ledger, clock):
        """After the clock was set back a day, a key makes its rate again, no less and no more."""
        key = make_key(ledger, rate_per_minute=2)
        ledger.accept(ask(key))
        clock.advance(-DAY_S)
        assert [ledger.accept(ask(key)).quota.remaining for _ in range(2)] == [1, 0]
        with pytest.raises(RateLimited):
            ledger.accept(ask(key))


class TestClaim:
    def test_nothing_waits(self, ledger):
        """An empty queue gives None."""
        assert ledger.claim("w1") is None

    def test_a_claim_counts_an_attempt_and_raises_the_fence(self, ledger, clock, key):
        """A claimed job is running from now on, under attempt and fence 1, and is claimed by nobody else."""
        ledger.accept(ask(key, job_id="j"))
        clock.advance(5)
        job, lease = ledger.claim("w1")
        assert job == ledger.job("j")
        assert lease == Lease(job_id="j", attempt=1, fence=1)
        assert (job.state, job.attempt, job.fence, job.started_at, job.queue_time_s) == (
            State.PROCESSING, 1, 1, START + 5, 5,
        )  # fmt: skip
        assert ledger.claim("w2") is None

    def test_jobs_of_one_key_run_in_their_order(self, ledger, clock, key):
        """Within a key the oldest goes first, even where the clock was set back between two submits."""
        for job_id in ("a", "b", "c", "d"):
            ledger.accept(ask(key, job_id=job_id))
            clock.advance(-1)
        assert [ledger.claim("w1")[0].id for _ in range(4)] == ["a", "b", "c", "d"]

    def test_queue_time_is_what_the_client_waited(self, ledger, clock, key):
        """A retried job has not started; claimed again, it started at its latest claim."""
        _, lease = running(ledger, key)
        clock.advance(7)
        assert ledger.retry(lease, CRASH).started_at is None
        clock.advance(3)
        assert ledger.claim("w2")[0].queue_time_s == 10


class TestRunning:
    def test_progress_is_kept_and_shown(self, ledger, key):
        """The last progress is on the job while it runs, and gone once it runs no more."""
        _, lease = running(ledger, key, job_id="j")
        assert ledger.job("j").progress is None
        assert ledger.progress(lease, PROGRESS) is False
        assert ledger.job("j").progress == PROGRESS
        assert ledger.retry(lease, CRASH).progress is None
        _, lease = ledger.claim("w1")
        assert ledger.job("j").progress is None
        ledger.progress(lease, PROGRESS)
        assert ledger.complete(lease, RESULT).progress is None

    def test_heartbeats_keep_a_job(self, ledger, clock, key):
        """A job whose worker gives signs of life is never reaped; one without is, when its lease is over."""
        _, lease = running(ledger, key, job_id="j")
        for _ in range(10):
            clock.advance(29)
            assert ledger.heartbeat("w1", [lease]) == frozenset()
            assert ledger.reap(ledger.overdue()) == []
        clock.advance(29.9)
        assert ledger.reap(ledger.overdue()) == []
        clock.advance(0.1)
        assert [job.id for job in ledger.reap(ledger.overdue())] == ["j"]

    def test_a_heartbeat_tells_what_is_lost(self, ledger, key):
        """A heartbeat names the jobs that are no longer this worker's, whatever became of them."""
        leases = {}
        for job_id in ("ours", "ended", "requeued", "retaken", "forgotten"):
            leases[job_id] = running(ledger, key, job_id=job_id)[1]
        for job_id in ("ended", "forgotten"):
            ledger.complete(leases[job_id], RESULT)
        ledger.forget(["forgotten"])
        ledger.retry(leases["retaken"], CRASH)
        assert ledger.claim("w1")[0].id == "retaken"
        ledger.retry(leases["requeued"], CRASH)
        lost = ledger.heartbeat("w1", list(leases.values()))
        assert lost == {"ended", "requeued", "retaken", "forgotten"}

    def test_another_worker_prolongs_nothing(self, ledger, clock, key):
        """A lease is prolonged for the worker that holds it only."""
        _, lease = running(ledger, key, job_id="j")
        clock.advance(20)
        assert ledger.heartbeat("w2", [lease]) == {"j"}
        clock.advance(10)
        assert len(ledger.reap(ledger.overdue())) == 1

    def test_a_heartbeat_without_jobs(self, ledger):
        """An idle worker's heartbeat learns nothing."""
        assert ledger.heartbeat("w1", []) == frozenset()

    def test_an_overdue_lease_nobody_took_is_still_good(self, ledger, clock, key):
        """Work that is done late, but before the job was given to another, is not thrown away."""
        _, lease = running(ledger, key)
        clock.advance(DAY_S)
        assert ledger.complete(lease, RESULT).state is State.COMPLETED


class TestEnding:
    def test_a_completed_job_is_charged(self, ledger, clock, key):
        """Completing keeps the result, charges the price, and says what is left, as of that moment."""
        _, lease = running(ledger, key, job_id="j", price_micro=400_000)
        ledger.accept(ask(key, price_micro=100_000))
        clock.advance(12)
        job = ledger.complete(lease, RESULT)
        assert job == ledger.job("j")
        assert (job.state, job.result, job.failure) == (State.COMPLETED, RESULT, None)
        assert (job.ended_at, job.expires_at, job.total_time_s) == (START + 12, START + 12 + 3600, 12)
        assert job.remaining_micro == 500_000
        ledger.accept(ask(key, price_micro=100_000))
        assert ledger.job("j").remaining_micro == 500_000
        paid = key_named(ledger, "studio")
        assert (paid.balance_micro, paid.held_micro, paid.spent_micro) == (400_000, 200_000, 400_000)

    def test_a_failed_job_costs_nothing(self, ledger, clock, key):
        """Failing keeps the failure and gives the price back."""
        _, lease = running(ledger, key, job_id="j", price_micro=400_000)
        clock.advance(12)
        job = ledger.fail(lease, CRASH)
        assert job == ledger.job("j")
        assert (job.state, job.result, job.failure) == (State.FAILED, None, CRASH)
        assert (job.ended_at, job.expires_at, job.remaining_micro) == (START + 12, START + 12 + 3600, 1_000_000)
        assert key_named(ledger, "studio") == key

    def test_a_job_ends_once(self, ledger, key):
        """After its end no write under any lease, and no sweep, changes a job or its credits."""
        for end in (lambda lease: ledger.complete(lease, RESULT), lambda lease: ledger.fail(lease, CRASH)):
            _, lease = running(ledger, key)
            end(lease)
            assert_refused(ledger, lease)

    def test_an_old_fence_changes_nothing(self, ledger, clock, key):
        """A worker that lost its job, to the queue or to another worker, can't write to it any more."""
        _, old = running(ledger, key, job_id="j")
        clock.advance(30)
        ledger.reap(ledger.overdue())
        assert_refused(ledger, old)
        _, new = ledger.claim("w2")
        assert new.fence > old.fence
        assert_refused(ledger, old)
        assert ledger.complete(new, RESULT).state is State.COMPLETED

    def test_a_job_given_back_is_not_its_old_workers(self, ledger, key):
        """A lease given back is over, although the next claim has the same attempt."""
        _, old = running(ledger, key)
        ledger.give_back(old)
        assert_refused(ledger, old)
        _, new = ledger.claim("w2")
        assert (new.attempt, new.fence) == (old.attempt, old.fence + 1)
        assert_refused(ledger, old)

    def test_a_lease_on_no_job_is_lost(self, ledger):
        """A lease on a job the ledger does not have is refused as lost."""
        with pytest.raises(LeaseLost):
            ledger.complete(Lease(job_id="nowhere", attempt=1, fence=1), RESULT)


def assert_refused(ledger, lease):
    """Every write under `lease` raises LeaseLost and changes nothing."""
    before = snapshot(ledger, lease.job_id)
    for write in (
        lambda: ledger.progress(lease, PROGRESS),
        lambda: ledger.complete(lease, RESULT),
        lambda: ledger.fail(lease, CRASH),
        lambda: ledger.retry(lease, CRASH),
        lambda: ledger.give_back(lease),
    ):
        with pytest.raises(LeaseLost, match=lease.job_id):
            write()
        assert snapshot(ledger, lease.job_id) == before
