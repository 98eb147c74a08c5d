"""Who goes next: fair between keys, by the work they ask for."""

from ledgers import CRASH, RESULT, ask, make_key, snapshot


def submit(ledger, key, name, count, *, steps=8):
    for number in range(count):
        ledger.accept(ask(key, job_id=f"{name}{number}", steps=steps))


def drain(ledger, count):
    """The ids of the next `count` jobs, each claimed and completed before the next."""
    order = []
    for _ in range(count):
        job, lease = ledger.claim("w1")
        ledger.complete(lease, RESULT)
        order.append(job.id)
    return order


def test_a_light_key_does_not_wait_behind_a_heavy_one(make_ledger):
    """A job of a key that asks for little goes next but one, however much another key has queued before."""
    ledger, _ = make_ledger()
    heavy, light = make_key(ledger, "heavy"), make_key(ledger, "light")
    submit(ledger, heavy, "h", 50)
    drain(ledger, 10)
    submit(ledger, light, "l", 1)
    assert "l0" in drain(ledger, 2)


def test_keys_with_as_much_queued_take_turns(make_ledger):
    """Two keys with equal jobs alternate, whichever submitted first."""
    ledger, _ = make_ledger()
    first, second = make_key(ledger, "a"), make_key(ledger, "b")
    submit(ledger, first, "a", 4)
    submit(ledger, second, "b", 4)
    assert drain(ledger, 8) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


def test_shares_are_of_work_not_of_jobs(make_ledger):
    """A key with jobs five times as long gets a fifth of the turns."""
    ledger, _ = make_ledger()
    long, short = make_key(ledger, "long"), make_key(ledger, "short")
    submit(ledger, long, "l", 20, steps=40)
    submit(ledger, short, "s", 100, steps=8)
    order = drain(ledger, 60)
    assert sum(job_id.startswith("l") for job_id in order) == 10


def test_an_idle_key_saves_nothing_up(make_ledger):
    """A key that was away takes turns when it comes back: its absence is no credit against the others."""
    ledger, _ = make_ledger()
    steady, away = make_key(ledger, "steady"), make_key(ledger, "away")
    submit(ledger, away, "early", 1)
    submit(ledger, steady, "s", 60)
    drain(ledger, 31)
    submit(ledger, away, "a", 20)
    turns = drain(ledger, 20)
    assert sum(job_id.startswith("a") for job_id in turns) in (10, 11)


def test_a_retried_job_goes_first_again(make_ledger):
    """A job whose worker crashed keeps its place before all that was queued behind it."""
    ledger, _ = make_ledger()
    first, second = make_key(ledger, "a"), make_key(ledger, "b")
    submit(ledger, first, "a", 3)
    submit(ledger, second, "b", 3)
    job, lease = ledger.claim("w1")
    drain(ledger, 2)
    ledger.retry(lease, CRASH)
    assert drain(ledger, 1) == [job.id] == ["a0"]


def test_cancelled_jobs_do_not_count_against_their_key(make_ledger):
    """Work that was cancelled before it was done costs its key no turns."""
    ledger, _ = make_ledger()
    fickle, other = make_key(ledger, "fickle"), make_key(ledger, "other")
    submit(ledger, fickle, "f", 30)
    for number in range(30):
        ledger.cancel(f"f{number}")
    submit(ledger, other, "o", 5)
    submit(ledger, fickle, "g", 5)
    assert drain(ledger, 4) == ["o0", "g0", "o1", "g1"]


def test_a_retried_job_does_not_turn_time_back(make_ledger):
    """After an old job was claimed again, a key that comes in takes turns, and no lead over those that wait."""
    ledger, _ = make_ledger()
    steady, new = make_key(ledger, "steady"), make_key(ledger, "new")
    submit(ledger, steady, "s", 30)
    _, lease = ledger.claim("w1")
    drain(ledger, 19)
    ledger.retry(lease, CRASH)
    assert drain(ledger, 1) == ["s0"]
    submit(ledger, new, "n", 10)
    assert sum(job_id.startswith("n") for job_id in drain(ledger, 10)) in (5, 6)


def test_the_upcoming_job_is_the_next_one_claimed(ledger, key):
    """It is told in the order of the claims, first of all a job put back, and none when all are taken."""
    other = make_key(ledger, "other")
    submit(ledger, key, "a", 2)
    submit(ledger, other, "b", 2)
    taken = []
    while upcoming := ledger.upcoming():
        job, lease = ledger.claim("w1")
        assert upcoming.id == job.id
        taken.append(lease)
    assert len(taken) == 4
    ledger.retry(taken[2], CRASH)
    upcoming = ledger.upcoming()
    assert (upcoming.id, upcoming.attempt) == (taken[2].job_id, 1)


def test_looking_at_the_upcoming_job_changes_nothing(ledger, key):
    """It stays queued, without a lease, an event or an attempt."""
    submit(ledger, key, "a", 2)
    before = snapshot(ledger, "a0", "a1")
    assert ledger.upcoming() == ledger.upcoming() == ledger.job("a0")
    assert snapshot(ledger, "a0", "a1") == before
