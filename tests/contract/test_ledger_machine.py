"""Whatever is called in whatever order: money adds up, jobs end once, fences rise."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run

from darkroom.errors import IdempotencyConflict, InsufficientCredits, LeaseLost, RateLimited, UnknownRequest
from darkroom.job import State
from darkroom.ledger.contract import MAX_ATTEMPTS
from ledgers import CRASH, PROGRESS, RESULT, ask, make_key, set_of

LEASE_S = 30.0
RETENTION_S = 100.0
GRANTED_MICRO = 10_000
WORKERS = st.sampled_from(["w1", "w2"])
SETS = [(), ("a",), ("b",), ("b", "a")]


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger at random and remembers, job by job, what it last saw."""

    leases = Bundle("leases")
    make_ledger = None

    @initialize()
    def open(self):
        self.ledger, self.clock = type(self).make_ledger(lease_s=LEASE_S, retention_s=RETENTION_S)
        self.keys = [
            make_key(self.ledger, "free", granted_micro=GRANTED_MICRO),
            make_key(self.ledger, "slow", granted_micro=GRANTED_MICRO, rate_per_minute=3),
        ]
        self.numbers = itertools.count()
        self.seen = {}
        self.forgotten = set()
        self.overdue = set()
        self.spent_micro = {key.id: 0 for key in self.keys}

    @rule(
        which=st.integers(0, 1),
        price_micro=st.sampled_from([0, 1000, 4000]),
        steps=st.sampled_from([1, 8, 40]),
        loras=st.sampled_from(SETS),
        named=st.none() | st.tuples(st.sampled_from("ab"), st.sampled_from("xy")),
    )
    def submit(self, which, price_micro, steps, loras, named):
        job_id = f"j{next(self.numbers)}"
        asked = ask(
            self.keys[which], job_id=job_id, price_micro=price_micro, steps=steps, loras=loras, idempotency=named
        )
        try:
            accepted = self.ledger.accept(asked)
        except (InsufficientCredits, RateLimited, IdempotencyConflict):
            assert self.ledger.known([job_id]) == set()
        else:
            assert accepted.replayed == (accepted.job.id != job_id)
            self.watch(accepted.job)

    @rule(target=leases, worker=WORKERS, held=st.sets(st.sampled_from(SETS)))
    def claim(self, worker, held):
        held = {set_of(*loras) for loras in held}
        waiting = [job.id for job in self.seen.values() if job.state is State.QUEUED]
        upcoming = self.ledger.upcoming(held)
        assert (upcoming is None) == (not waiting)
        assert upcoming is None or upcoming == self.seen[upcoming.id]
        claimed = self.ledger.claim(worker, held)
        assert (claimed is None) == (not waiting)
        if claimed is None:
            return None
        job, lease = claimed
        assert job.id == upcoming.id
        assert job.id in waiting
        assert job.fence == self.seen[job.id].fence + 1
        self.watch(job)
        return worker, lease

    @rule(held=leases)
    def heartbeat(self, held):
        if held:
            worker, lease = held
            assert (lease.job_id in self.ledger.heartbeat(worker, [lease])) == (not self.current(lease))

    @rule(held=leases, write=st.sampled_from(["progress", "complete", "fail", "retry", "give_back"]))
    def write(self, held, write):
        if not held:
            return
        _, lease = held
        current = self.current(lease)
        arguments = {"progress": [PROGRESS], "complete": [RESULT], "fail": [CRASH], "retry": [CRASH], "give_back": []}
        try:
            answer = getattr(self.ledger, write)(lease, *arguments[write])
        except LeaseLost:
            assert not current
        else:
            assert current
            if write != "progress":
                self.watch(answer)

    @rule(held=consumes(leases))
    def lose(self, held):
        """Fewer leases to choose from, so that others are used more than once."""

    @rule(number=st.integers(0, 60))
    def cancel(self, number):
        try:
            self.watch(self.ledger.cancel(f"j{number}"))
        except UnknownRequest:
            job = self.seen.get(f"j{number}")
            assert job is None or job.expires_at <= self.clock.now

    @rule(worker=WORKERS)
    def release(self, worker):
        for job in self.ledger.release(worker, CRASH):
            self.watch(job)

    @rule()
    def look(self):
        """What a sweep has seen, and a later one may take."""
        self.overdue |= self.ledger.overdue()

    @rule(everything=st.booleans())
    def reap(self, everything):
        now = self.ledger.overdue()
        for job in self.ledger.reap(now if everything else self.overdue):
            assert (job.id, job.fence) in {(lease.job_id, lease.fence) for lease in now}
            assert everything or (job.id, job.fence) in {(lease.job_id, lease.fence) for lease in self.overdue & now}
            self.watch(job)
        assert not self.ledger.overdue() & (now if everything else self.overdue)

    @rule()
    def sweep(self):
        expired = self.ledger.expired()
        assert all(self.seen[job_id].expires_at <= self.clock.now for job_id in expired)
        self.ledger.forget(expired)
        self.forgotten.update(expired)

    @rule(seconds=st.sampled_from([0.5, LEASE_S / 2, LEASE_S, RETENTION_S, -1.0, -LEASE_S]))
    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def jobs_are_kept_until_forgotten(self):
        assert self.ledger.known(self.seen) == set(self.seen) - self.forgotten
        counts = self.ledger.counts()
        kept = [job for job_id, job in self.seen.items() if job_id not in self.forgotten]
        assert counts == {state: sum(job.state is state for job in kept) for state in State}

    @invariant()
    def money_adds_up(self):
        for key in list(self.ledger.keys()):
            open_micro = sum(j.price_micro for j in self.seen.values() if j.key_id == key.id and not j.state.ended)
            assert key.granted_micro == GRANTED_MICRO == key.balance_micro + key.held_micro + key.spent_micro
            assert min(key.balance_micro, key.held_micro, key.spent_micro) >= 0
            assert (key.held_micro, key.spent_micro) == (open_micro, self.spent_micro[key.id])

    @invariant()
    def events_tell_the_story(self):
        for job in self.seen.values():
            events = self.ledger.events(job.id)
            if job.id in self.forgotten:
                assert events == []
                continue
            story = [event.kind for event in events]
            assert story[0] == "accepted"
            assert story.count("completed") + story.count("failed") == job.state.ended
            assert job.state.ended == (story[-1] in {"completed", "failed"})
            assert story.count("claimed") == job.fence
            assert story.count("claimed") - story.count("given_back") == job.attempt
            assert [event.at for event in events] == sorted(event.at for event in events)

    def current(self, lease):
        job = self.seen[lease.job_id]
        return job.state is State.PROCESSING and job.fence == lease.fence

    def watch(self, job):
        """Hold the job's new state against the one seen before."""
        before = self.seen.get(job.id)
        if before is None:
            assert (job.state, job.attempt, job.fence) == (State.QUEUED, 0, 0)
        else:
            assert job.fence >= before.fence
            if before.state.ended:
                assert job == before
        assert 0 <= job.attempt <= MAX_ATTEMPTS
        times = [job.created_at, job.started_at, job.ended_at, job.expires_at]
        known = [time for time in times if time is not None]
        assert known == sorted(known)
        if job.state is State.COMPLETED and not (before and before.state.ended):
            self.spent_micro[job.key_id] += job.price_micro
        self.seen[job.id] = job


def test_the_ledger_holds_under_any_order_of_calls(make_ledger):
    """The invariants above hold after every call of every run."""
    machine = type("Machine", (LedgerMachine,), {"make_ledger": staticmethod(make_ledger)})
    run(machine, settings=settings(max_examples=60, stateful_step_count=60, deadline=None))
