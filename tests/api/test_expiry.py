"""What is kept, and for how long, on a clock that the test sets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from darkroom import compose, stores
from darkroom.blobs.names import input_name, result_name
from darkroom.job import Failure, Result
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.settings import Settings
from darkroom.sweep import Sweeper
from serving import Node, picture, serving

EDIT = "/v2/qwen-image-edit-plus"
RETENTION_S = 3600


class Clock:
    """The whole node's: ahead of the machine's by as much as the test says."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def ledger(path: Path, **options: float) -> SqliteLedger:
        return SqliteLedger(path, **options, clock=clock)

    def sweeper(**parts) -> Sweeper:
        return Sweeper(**parts, clock=clock)

    monkeypatch.setattr(stores, "SqliteLedger", ledger)
    monkeypatch.setattr(compose, "Sweeper", sweeper)
    return clock


@contextmanager
def node_at(folder: Path) -> Iterator[Node]:
    """Without an engine: its jobs are the test's to claim."""
    with serving(Settings(data=folder, checkpoint="/nowhere", retention_s=RETENTION_S)) as node:
        yield node


def end(node: Node, *, well: bool) -> str:
    """As a worker would end the job that waits."""
    ledger = node.service.ledger
    job, lease = ledger.claim("w")
    if well:
        blob = result_name(job.id, fence=lease.fence, extension="webp")
        node.service.blobs.put(blob, picture())
        ledger.complete(
            lease,
            Result(
                blob=blob, content_type="image/webp", size_bytes=9, width_px=8, height_px=8, timings_s={"denoise": 1}
            ),
        )
    else:
        ledger.fail(lease, Failure(code="engine_failed", message="x"))
    return job.id


def files(node: Node) -> set[str]:
    return {name for name, _ in node.service.blobs.names("jobs")}


@pytest.mark.parametrize("restarted", [False, True])
def test_everything_of_a_request_goes_together(tmp_path: Path, clock: Clock, params, *, restarted: bool) -> None:
    """Row, inputs and result stay for `retention_s` after the end; then the id is 404 and the disk is as before, also
    if the service was not there at the time."""
    with node_at(tmp_path) as node:
        secret = node.new_key("test")
        with node.client(secret) as client:
            client.post(EDIT, json=params)
            good = end(node, well=True)
            client.post(EDIT, json=params)
            bad = end(node, well=False)
            clock.ahead_s = RETENTION_S - 60
            node.service._sweeper.sweep()
            output = client.get(f"/v2/requests/{good}").json()["output"]
            assert client.get(f"/v2/requests/{bad}").status_code == 422
            assert files(node) >= {input_name(good, "image"), input_name(bad, "image")}
            assert len(files(node)) == 3
            clock.ahead_s = RETENTION_S + 60
            if not restarted:
                expect_gone(node, client, [good, bad], output)
    if restarted:
        with node_at(tmp_path) as node, node.client(secret) as client:
            output = node.url + output[output.index("/files/") :]
            expect_gone(node, client, [good, bad], output)


def expect_gone(node: Node, client: httpx.Client, ids: list[str], output: str) -> None:
    # Gone for clients at its time, not when the sweeper comes by.
    for request_id in ids:
        for path in (f"/v2/requests/{request_id}", f"/v2/requests/{request_id}/status", f"/v1/requests/{request_id}"):
            answer = client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"] == f"Request {request_id} not found"
        assert client.delete(f"/v2/requests/{request_id}").status_code == 404
    assert httpx.get(output).status_code == 404
    node.service._sweeper.sweep()
    assert files(node) == set()
    assert sum(node.service.ledger.counts().values()) == 0


def test_a_request_that_waits_does_not_expire(tmp_path: Path, clock: Clock, params) -> None:
    """The time begins when it has ended."""
    with node_at(tmp_path) as node, node.client(node.new_key("test")) as client:
        submitted = client.post(EDIT, json=params).json()
        clock.ahead_s = 100 * RETENTION_S
        node.service._sweeper.sweep()
        assert client.get(submitted["status_url"]).json()["status"] == "QUEUED"
        assert len(files(node)) == 1
