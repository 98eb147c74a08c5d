"""The outbox: whatever ends a job owes its key's webhooks a message, which is sent until it is taken."""

import pytest

from darkroom.errors import LeaseLost, UnknownWebhook, WebhooksFull
from darkroom.ledger.outbox import CLAIM_S, MOST, RETRY_S
from darkroom.webhook import EventType, Outcome
from ledgers import CRASH, RESULT, ask, make_key, running

COMPLETED, FAILED = EventType.COMPLETED, EventType.FAILED


@pytest.fixture
def outbox(ledger):
    return ledger.outbox


@pytest.fixture
def add(outbox):
    def add(key, *types, url="https://shop.example.com/hook"):
        return outbox.add(key.id, url=url, types=types or (COMPLETED, FAILED), base="https://darkroom.example.com")

    return add


def complete(ledger, key, **asked):
    _, lease = running(ledger, key, **asked)
    return ledger.complete(lease, RESULT)


def claim(outbox, *, busy=(), limit=16):
    return list(outbox.claim(busy=busy, limit=limit))


def log(outbox, webhook, limit=100):
    return outbox.deliveries(webhook.id, key_id=webhook.key_id, limit=limit)


def test_a_completed_job_is_told_of(ledger, outbox, key, add):
    """One message to each webhook of its key that wants to know, none before it has ended."""
    webhook, other = add(key), add(key, COMPLETED, url="https://other.example.com/")
    job, lease = running(ledger, key)
    assert claim(outbox) == []
    ledger.complete(lease, RESULT)
    claimed = claim(outbox)
    assert [(each.job_id, each.type, each.attempt) for each, _ in claimed] == [(job.id, COMPLETED, 1)] * 2
    assert [to for _, to in claimed] == [webhook, other]
    assert len({each.id for each, _ in claimed}) == 2


@pytest.mark.parametrize("end", ["fail", "cancel", "cancel while it runs", "lose its worker"])
def test_a_failed_job_is_told_of(ledger, outbox, key, add, end):
    """However it came to fail, and once."""
    add(key)
    if end == "cancel":
        job = ledger.accept(ask(key)).job
        ledger.cancel(job.id)
    else:
        job, lease = running(ledger, key)
        if end == "fail":
            ledger.fail(lease, CRASH)
        elif end == "cancel while it runs":
            ledger.cancel(job.id)
            ledger.give_back(lease)
        else:
            while not ledger.retry(lease, CRASH).state.ended:
                assert claim(outbox) == []
                _, lease = ledger.claim("w1")
    ((message, _),) = claim(outbox)
    assert (message.job_id, message.type) == (job.id, FAILED)


def test_nobody_else_is_told(ledger, outbox, key, add):
    """No webhook of another key, of another type, or one that was ended before."""
    add(make_key(ledger, "other"))
    add(key, FAILED)
    outbox.end(add(key).id, key_id=key.id)
    complete(ledger, key)
    assert claim(outbox) == []


def test_an_ending_that_does_not_stand_is_not_told(ledger, outbox, key, add, clock):
    """A worker whose lease is lost owes nobody a message."""
    add(key)
    _, lost = running(ledger, key)
    clock.advance(31)
    ledger.reap(ledger.overdue())
    with pytest.raises(LeaseLost):
        ledger.complete(lost, RESULT)
    assert claim(outbox) == []


def test_a_webhook_is_sent_one_message_at_a_time(ledger, outbox, key, add):
    """The oldest; a webhook that is busy waits for its next, and the others don't wait for it."""
    first, second = add(key), add(key)
    old, new = complete(ledger, key), complete(ledger, key)
    claimed = claim(outbox)
    assert [(each.job_id, to.id) for each, to in claimed] == [(old.id, first.id), (old.id, second.id)]
    assert [(each.job_id, to.id) for each, to in claim(outbox, busy=[first.id])] == [(new.id, second.id)]
    assert [(each.job_id, to.id) for each, to in claim(outbox)] == [(new.id, first.id)]


def test_no_more_are_claimed_than_asked_for(ledger, outbox, key, add):
    """Those that are left are claimed next."""
    webhooks = [add(key) for _ in range(3)]
    complete(ledger, key)
    assert [to.id for _, to in claim(outbox, limit=2)] == [each.id for each in webhooks[:2]]
    assert [to.id for _, to in claim(outbox, limit=2)] == [webhooks[2].id]


def test_what_was_taken_is_not_sent_again(ledger, outbox, key, add, clock):
    """Its log says so."""
    webhook = add(key)
    complete(ledger, key)
    ((message, _),) = claim(outbox)
    outbox.note(message, status=204, error=None)
    clock.advance(1800)
    assert claim(outbox) == []
    (logged,) = log(outbox, webhook)
    assert (logged.outcome, logged.status, logged.error, logged.attempt) == (Outcome.DELIVERED, 204, None, 1)


def test_what_was_not_taken_is_sent_again(ledger, outbox, key, add, clock):
    """After each of `RETRY_S`, under the same id, and then no more."""
    webhook = add(key)
    complete(ledger, key)
    ids = set()
    for attempt, later in enumerate((*RETRY_S, None), start=1):
        ((message, _),) = claim(outbox)
        assert message.attempt == attempt
        ids.add(message.id)
        outbox.note(message, status=500, error="the receiver answered 500")
        (logged,) = log(outbox, webhook)
        assert (logged.status, logged.error) == (500, "the receiver answered 500")
        if later is not None:
            assert logged.outcome is Outcome.PENDING
            clock.advance(later - 1)
            assert claim(outbox) == []
            clock.advance(1)
    assert logged.outcome is Outcome.FAILED
    assert len(ids) == 1
    clock.advance(800)
    assert claim(outbox) == []


def test_a_message_whose_sender_died_is_sent_again(ledger, outbox, key, add, clock):
    """Once its claim is over, under the same id; what the first sender still has to say is not heard."""
    webhook = add(key)
    complete(ledger, key)
    ((lost, _),) = claim(outbox)
    clock.advance(CLAIM_S - 1)
    assert claim(outbox) == []
    clock.advance(1)
    ((again, _),) = claim(outbox)
    assert (again.id, again.attempt) == (lost.id, 2)
    outbox.note(lost, status=200, error=None)
    (logged,) = log(outbox, webhook)
    assert logged.outcome is Outcome.PENDING


def test_an_ended_webhook_is_sent_nothing_more(ledger, outbox, key, add, clock):
    """What was waiting is dropped, also what was on its way and failed; its log stays."""
    webhook = add(key)
    complete(ledger, key)
    complete(ledger, key)
    ((message, _),) = claim(outbox)
    assert outbox.end(webhook.id, key_id=key.id).ended_at == clock.now
    outbox.note(message, status=500, error="the receiver answered 500")
    clock.advance(CLAIM_S)
    assert claim(outbox) == []
    assert [each.outcome for each in log(outbox, webhook)] == [Outcome.FAILED] * 2
    assert {each.error for each in log(outbox, webhook)} == {"the webhook was made inactive"}
    assert outbox.end(webhook.id, key_id=key.id).ended_at == clock.now - CLAIM_S


def test_a_changed_webhook_is_sent_what_waits(ledger, outbox, key, add):
    """At its new address, with its secret as it was; the new types are for what ends from now on."""
    webhook = add(key)
    complete(ledger, key)
    changed = outbox.update(webhook.id, key_id=key.id, url="https://new.example.com/", types=[FAILED], base="http://a")
    assert (changed.url, changed.types, changed.secret) == ("https://new.example.com/", (FAILED,), webhook.secret)
    assert [to for _, to in claim(outbox)] == [changed]
    complete(ledger, key)
    assert claim(outbox) == []


def test_messages_go_with_their_job(ledger, outbox, key, add, clock):
    """An expired job is not told of, and forgetting it takes its messages along."""
    webhook = add(key)
    job = complete(ledger, key)
    clock.advance(3600)
    assert claim(outbox) == []
    ledger.forget([job.id])
    assert log(outbox, webhook) == []


def test_a_revoked_key_is_told_nothing(ledger, outbox, key, add):
    """Neither of what ended before it was revoked nor of what ends after: it can ask for no result either."""
    add(key)
    complete(ledger, key)
    _, lease = running(ledger, key)
    ledger.revoke_key(key.name)
    ledger.complete(lease, RESULT)
    assert claim(outbox) == []


def test_a_key_has_so_many_webhooks(ledger, outbox, key, add):
    """One more is refused; an ended one makes room, and another key has its own."""
    webhooks = [add(key) for _ in range(MOST)]
    with pytest.raises(WebhooksFull, match=str(MOST)):
        add(key)
    add(make_key(ledger, "other"))
    outbox.end(webhooks[0].id, key_id=key.id)
    add(key)


def test_ended_webhooks_are_kept_as_long_as_their_messages(ledger, outbox, key, add):
    """They are listed as ended; the next that is added clears away those that have no messages."""
    silent, told, live = add(key), add(key), add(key)
    outbox.end(silent.id, key_id=key.id)
    job = complete(ledger, key)
    outbox.end(told.id, key_id=key.id)
    assert [each.id for each in outbox.webhooks(key.id)] == [live.id, told.id, silent.id]
    assert [each.ended_at is None for each in outbox.webhooks(key.id)] == [True, False, False]
    newest = add(key)
    assert [each.id for each in outbox.webhooks(key.id)] == [newest.id, live.id, told.id]
    ledger.forget([job.id])
    last = add(key)
    assert [each.id for each in outbox.webhooks(key.id)] == [last.id, newest.id, live.id]


def test_a_webhook_is_its_keys_alone(ledger, outbox, key, add):
    """To another key it is unknown, whatever is asked of it; so is one that was never there, and to update an ended."""
    webhook = add(key)
    other = make_key(ledger, "other")
    told = {"url": "https://x.example.com/", "types": [FAILED], "base": "http://a"}
    for webhook_id, owner in ((webhook.id, other), ("nobody", key)):
        with pytest.raises(UnknownWebhook):
            outbox.update(webhook_id, key_id=owner.id, **told)
        with pytest.raises(UnknownWebhook):
            outbox.end(webhook_id, key_id=owner.id)
        with pytest.raises(UnknownWebhook):
            outbox.deliveries(webhook_id, key_id=owner.id, limit=1)
    assert outbox.webhooks(other.id) == []
    assert outbox.webhooks(key.id) == [webhook]
    outbox.end(webhook.id, key_id=key.id)
    with pytest.raises(UnknownWebhook):
        outbox.update(webhook.id, key_id=key.id, **told)


def test_the_log_has_the_latest(ledger, outbox, key, add):
    """Newest first, so many as are asked for."""
    webhook = add(key)
    jobs = [complete(ledger, key) for _ in range(3)]
    assert [each.job_id for each in log(outbox, webhook, limit=2)] == [jobs[2].id, jobs[1].id]


def test_every_webhook_has_a_secret_of_its_own(key, add):
    """In the form that verifiers of Standard Webhooks take."""
    secrets = {add(key).secret for _ in range(3)}
    assert len(secrets) == 3
    assert all(secret.startswith("whsec_") for secret in secrets)
