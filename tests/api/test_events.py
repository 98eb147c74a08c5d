"""Server-sent events over plain HTTP."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from serving import Gallery, Node, run, submit_running

SUBMIT = "/v2/qwen-image-edit-plus"


def told(client: httpx.Client, request_id: str) -> Iterator[dict[str, Any]]:
    """The `data` of the events, as they come, until the stream ends."""
    with client.stream("GET", f"/v2/requests/{request_id}/events") as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def test_a_request_is_followed_to_its_result(client: httpx.Client, params) -> None:
    """Its steps in their order, each told once, and last what its status is from then on."""
    submitted = submit_running(client, params)
    heard = list(told(client, submitted["request_id"]))
    assert heard[-1] == client.get(submitted["status_url"]).json()
    assert heard[-1]["status"] == "COMPLETED"
    steps = [each["progress"]["step"] for each in heard if each.get("progress", {}).get("stage") == "denoise"]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5
    assert all(one != next_ for one, next_ in pairwise(heard))


def test_a_request_that_has_ended_is_told_once(client: httpx.Client, pictures: Gallery, params) -> None:
    """A failure with its code, as the status has it."""
    submitted = run(client, params | {"image": pictures.url("missing")})
    assert list(told(client, submitted["request_id"])) == [client.get(submitted["status_url"]).json()]


def test_a_cancelled_request_ends_its_stream(queue: httpx.Client, params) -> None:
    """While it waits, its stream says so and stays open."""
    submitted = queue.post(SUBMIT, json=params).json()
    heard = told(queue, submitted["request_id"])
    assert next(heard)["status"] == "QUEUED"
    queue.delete(submitted["response_url"])
    assert [each["code"] for each in heard] == ["cancelled"]


@pytest.mark.parametrize("who", ["nobody's", "another key's"])
def test_a_request_one_may_not_see_is_refused(idle: Node, queue: httpx.Client, params, who: str) -> None:
    """With the one error body, before any stream begins."""
    request_id = queue.post(SUBMIT, json=params).json()["request_id"] if who == "another key's" else "0" * 32
    with idle.client(idle.new_key(f"sees not {who}")) as other:
        answer = other.get(f"/v2/requests/{request_id}/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_request")
