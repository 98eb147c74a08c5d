"""Whatever is killed when: every accepted job ends exactly once, credits add up, no file is left over."""

import contextlib
import json
import os
import signal
import time

import httpx
import pytest

from darkroom.blobs.folder import Folder
from darkroom.job import MICRO, State
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.sweep import Sweeper
from e2e.node import Node
from serving import mailbox

WORKER_POINTS = [
    "worker SqliteLedger.claim after",
    *(f"worker SqliteLedger.progress before {stage}" for stage in ("fetch", "prepare", "encode", "denoise", "decode")),
    *(f"worker SqliteLedger.progress after {stage}" for stage in ("write",)),
    "worker Folder.put after",
    "worker SqliteLedger.complete before",
    "worker SqliteLedger.complete after",
]
SERVICE_POINTS = [
    ["service Folder.put after"],
    ["service SqliteLedger.accept before"],
    ["service SqliteLedger.accept after"],
    ["worker SqliteLedger.complete before", "service SqliteLedger.release before"],
    ["worker SqliteLedger.complete before", "service SqliteLedger.release after"],
]


@contextlib.contextmanager
def running(folder, checkpoint, **settings):
    node = Node(folder, checkpoint, **settings)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def node(tmp_path, tiny_checkpoint):
    with running(tmp_path, tiny_checkpoint) as node:
        yield node


def test_a_worker_killed_anywhere_loses_nothing(node):
    """A job whose worker is killed at any point ends COMPLETED, with the same picture, and is paid for once."""
    undisturbed = node.ended(node.submit())
    picture = node.pixels(undisturbed)
    ids = [undisturbed["request_id"]]
    for point in WORKER_POINTS:
        node.crash_at(point)
        body = node.ended(node.submit())
        assert not node.plan.exists(), f"{point} was never reached"
        assert body["status"] == "COMPLETED", (point, body)
        assert node.pixels(body) == picture, point
        assert body["metrics"].get("retry_count", 0) == (0 if point.endswith("complete after") else 1), point
        ids.append(body["request_id"])
    assert node.stop() == 0
    check_books(node, completed=ids)
    check_clean(node)


def test_a_worker_killed_with_two_jobs_in_hand_loses_neither(node):
    """Killed while one job's picture is kept and the next denoises, both end once, each with its own picture."""
    undisturbed = [node.ended(node.submit(seed=seed)) for seed in (5, 6)]
    node.crash_at("worker SqliteLedger.complete before", signal="HANG")
    finishing = node.submit(seed=5)
    node.wait_crashed()
    node.crash_at("worker SqliteLedger.progress before denoise")
    making = node.submit(seed=6)
    node.wait_crashed()
    ended = [node.ended(request_id) for request_id in (finishing, making)]
    assert [(body["status"], body["metrics"]["retry_count"]) for body in ended] == [("COMPLETED", 1)] * 2
    assert [node.pixels(body) for body in ended] == [node.pixels(body) for body in undisturbed]
    assert node.stop() == 0
    check_books(node, completed=[finishing, making])
    check_clean(node)


@pytest.mark.parametrize("points", SERVICE_POINTS)
def test_the_whole_service_killed_loses_nothing_it_accepted(node, points):
    """After a kill between any two transitions and a restart, a job the client was promised ends, once."""
    promised = [node.submit()]
    for point in points:
        node.crash_at(point)
        with contextlib.suppress(httpx.HTTPError):
            promised.append(node.submit())
        node.wait_crashed()
    node.wait_killed()
    node.start()
    for request_id in promised:
        assert node.ended(request_id)["status"] == "COMPLETED"
    assert node.stop() == 0
    check_books(node, completed=promised)
    check_clean(node)


def test_a_job_that_kills_its_worker_every_time_fails_and_takes_nobody_along(node):
    """Three attempts, then FAILED with the cause and the money back; the next job is fine."""
    node.crash_at("worker SqliteLedger.progress before denoise")
    poison = node.submit()
    for _ in range(2):
        node.wait_crashed()
        node.crash_at("worker SqliteLedger.progress before denoise")
    node.wait_crashed()
    body = node.ended(poison)
    assert (body["status"], body["code"]) == ("FAILED", "worker_lost")
    assert "signal 9" in body["error"]
    healthy = node.submit()
    assert node.ended(healthy)["status"] == "COMPLETED"
    assert node.stop() == 0
    ledger = open_books(node)
    (key,) = ledger.keys()
    assert key.spent_micro == ledger.job(healthy).price_micro
    assert key.held_micro == 0
    ledger.close()


def test_a_worker_that_hangs_is_replaced(tmp_path, tiny_checkpoint):
    """No step within its deadline: the worker is killed, and the job ends on its successor."""
    with running(tmp_path, tiny_checkpoint, DARKROOM_STEP_DEADLINE_S="2") as node:
        node.crash_at("worker SqliteLedger.progress after denoise", signal="STOP")
        body = node.ended(node.submit())
        assert body["status"] == "COMPLETED"
        assert body["metrics"]["retry_count"] == 1


def test_a_picture_whose_writing_hangs_is_noticed(tmp_path, tiny_checkpoint):
    """A job that is not settled within the step deadline costs its worker; both jobs in hand end on the next."""
    with running(tmp_path, tiny_checkpoint, DARKROOM_STEP_DEADLINE_S="2") as node:
        node.crash_at("worker SqliteLedger.complete before", signal="HANG")
        finishing = node.submit()
        node.wait_crashed()
        ended = [node.ended(request_id) for request_id in (finishing, node.submit())]
        assert [(body["status"], body["metrics"]["retry_count"]) for body in ended] == [("COMPLETED", 1)] * 2


def test_a_worker_that_wakes_up_after_its_job_was_redone_changes_nothing(node, tmp_path, tiny_checkpoint):
    """A worker frozen past its lease is fenced out: what another service has answered meanwhile stays the answer."""
    node.crash_at("worker SqliteLedger.complete before", signal="STOP")
    request_id = node.submit()
    node.wait_crashed()
    with running(tmp_path, tiny_checkpoint) as other:
        other.key = node.key
        first = other.ended(request_id)
        os.kill(node.worker_pid(), signal.SIGCONT)
        assert node.ended(node.submit())["status"] == "COMPLETED"
        again = other.ended(request_id)
        assert other.stop() == 0
    assert first["status"] == "COMPLETED"
    assert again == first
    assert node.stop() == 0
    check_books(node, completed=[request_id])
    assert len(list((node.data / "blobs").rglob(f"{request_id}/result-*"))) == 1


def test_a_kill_in_the_sweep_leaves_nothing(tmp_path, tiny_checkpoint):
    """A service killed between deleting an expired job's files and its row finishes the deletion after a restart."""
    with running(tmp_path, tiny_checkpoint, DARKROOM_RETENTION_S="1") as node:
        node.crash_at("service SqliteLedger.forget before")
        request_id = node.submit()
        node.wait_killed()
        node.start()
        assert node.get(f"/v2/requests/{request_id}").status_code == 404
        assert node.stop() == 0
        check_clean(node)


def open_books(node):
    return SqliteLedger(node.data / "ledger.db", lease_s=2, retention_s=3600)


def check_books(node, *, completed):
    """The ledger's side: each promised job ended once, and the keys' money is all accounted for."""
    ledger = open_books(node)
    assert {state for state, count in ledger.counts().items() if count} <= {State.COMPLETED}
    for request_id in completed:
        kinds = [event.kind for event in ledger.events(request_id)]
        assert sum(kind in ("completed", "failed") for kind in kinds) == 1, kinds
    (key,) = ledger.keys()
    jobs = ledger.counts()[State.COMPLETED]
    price = ledger.job(completed[0]).price_micro
    assert key.granted_micro == 1_000_000 * MICRO
    assert (key.held_micro, key.spent_micro) == (0, jobs * price)
    ledger.close()


def check_clean(node):
    """When all is past its time, one sweep leaves no file and no row."""
    later = time.time() + 7200
    ledger = SqliteLedger(node.data / "ledger.db", lease_s=2, retention_s=3600, clock=lambda: later)
    blobs = Folder(node.data / "blobs")
    Sweeper(ledger=ledger, blobs=blobs, interval_s=1, clock=lambda: later).sweep()
    assert sum(ledger.counts().values()) == 0
    # The folder goes by its files' own times, which have not moved: a put that was killed is tidied up as if they had.
    blobs.clean(older_than_s=0)
    assert [path for path in (node.data / "blobs").rglob("*") if path.is_file()] == []
    ledger.close()


def test_webhooks_are_told_whatever_is_killed(tmp_path, tiny_checkpoint):
    """Of a job whose worker dies as it ends; and by the next service, under the same id, what was still to be sent."""
    with mailbox() as receiver, running(tmp_path, tiny_checkpoint, DARKROOM_FETCH_ALLOW=receiver.address) as node:
        webhook = {"webhook_url": receiver.url("/"), "event": {"types": ["request.completed"]}}
        assert httpx.post(f"{node.url}/webhook/add", json=webhook, headers={"x-api-key": node.key}).status_code == 200
        receiver.answers["/"] = [204, 500]
        node.crash_at("worker SqliteLedger.complete after")
        first = node.submit()
        assert [told_of(letter) for letter in receiver.letters("/", 1)] == [first]
        assert not node.plan.exists()
        second = node.submit()
        receiver.letters("/", 2)
        node.kill()
        node.start()
        _, refused, taken = receiver.letters("/", 3)
        assert (told_of(refused), told_of(taken)) == (second, second)
        assert refused.headers["webhook-id"] == taken.headers["webhook-id"]


def told_of(letter):
    return json.loads(letter.body)["data"]["request_id"]
