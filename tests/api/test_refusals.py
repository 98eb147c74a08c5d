from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from darkroom.errors import StorageFull
from serving import Node

EDITS = ("/v1/qwen-image-edit-plus", "/v2/qwen-image-edit-plus")
pytestmark = pytest.mark.parametrize("path", EDITS)
"""Whatever is refused at the door is refused alike on both."""


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    """The message of a refusal that has the one shape."""
    body = answer.json()
    assert (answer.status_code, body["code"], body.get("field")) == (status, code, field), body
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body.keys() == {"error", "code", "request_id"} | ({"field"} if field else set())
    return body["error"]


def test_no_key(idle: Node, path: str, params) -> None:
    """401, to the letter."""
    with idle.client(None) as client:
        message = refused(client.post(path, json=params), 401, "missing_api_key")
    assert message == "Missing Authorization or x-api-key in header"


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "dk_wrong"}, {"Authorization": "Bearer dk_wrong"}, {"Authorization": "Basic eDp5"}],
    ids=str,
)
def test_a_wrong_key(idle: Node, path: str, headers: dict[str, str], params) -> None:
    """401, to the letter."""
    answer = httpx.post(idle.url + path, json=params, headers=headers)
    message = refused(answer, 401, "invalid_api_key")
    assert message == "Unauthorized. API key is invalid or may have expired."
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_key(idle: Node, path: str, params) -> None:
    """Revoked is as good as never made."""
    with idle.client(idle.new_key("short-lived")) as client:
        idle.service.ledger.revoke_key("short-lived")
        refused(client.post(path, json=params), 401, "invalid_api_key")


def test_a_bearer_token_is_a_key_too(idle: Node, path: str, params) -> None:
    """Authorization: Bearer stands for x-api-key."""
    secret = idle.new_key(f"bearer of {path}")
    with idle.client(None, Authorization=f"Bearer {secret}") as client:
        refused(client.post(path, json=params | {"seed": "x"}), 400, "invalid_field", "seed")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": "many"}, "seed"),
        ({"seed": -2}, "seed"),
        ({"aspect_ratio": "7:5"}, "aspect_ratio"),
        ({"quality": 101}, "quality"),
        ({"prompt": None}, "prompt"),
        ({"image": None}, "image"),
        ({"image": "ftp://example.com/a.png"}, "image"),
        ({"image": "bm90IGEgcGljdHVyZQ=="}, "image"),
        ({"image_2": "data:image/png;base64,AAAA"}, "image_2"),
    ],
    ids=str,
)
def test_a_bad_field(queue: httpx.Client, path: str, params, change: dict[str, Any], field: str) -> None:
    """What can be known at once is refused at once, by the parameter's name."""
    answer = queue.post(path, json=params | change)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert field in answer.json()["error"]


def test_an_unknown_field(queue: httpx.Client, path: str, params) -> None:
    """Named, not ignored."""
    message = refused(queue.post(path, json=params | {"promt": "x"}), 400, "unknown_field", "promt")
    assert "prompt" in message


def test_an_unknown_model(queue: httpx.Client, path: str, params) -> None:
    """404 for a slug without a card."""
    refused(queue.post(path.replace("plus", "minus"), json=params), 404, "unknown_model")


def test_a_model_the_key_may_not_use(idle: Node, path: str, params) -> None:
    """403."""
    with idle.client(idle.new_key(f"other model {path}", models=["qwen-image-edit-plus-relight"])) as client:
        refused(client.post(path, json=params), 403, "model_forbidden")


def test_a_model_without_its_adapter(queue: httpx.Client, path: str, params) -> None:
    """503 while the adapter of the model is not there."""
    del params["image"]
    slug = path.replace("plus", "plus-relight")
    params = {name: params[name] for name in ("prompt", "seed")} | {"image_1": "https://example.com/a.png"}
    refused(queue.post(slug, json=params), 503, "adapter_unavailable", "lora")


def test_too_few_credits(idle: Node, path: str, params) -> None:
    """406 names what there is and what it takes."""
    with idle.client(idle.new_key(f"poor {path}", credits=0.001)) as client:
        message = refused(client.post(path, json=params), 406, "insufficient_credits")
    assert "0.001" in message


def test_too_many_requests(idle: Node, path: str, params) -> None:
    """429 with Retry-After and the counters, which every answer before it has counted down."""
    with idle.client(idle.new_key(f"hasty {path}", rate_per_minute=2)) as client:
        counters = [client.post(EDITS[1], json=params).headers["x-rate-limit-remaining"] for _ in range(2)]
        answer = client.post(path, json=params)
    assert counters == ["1", "0"]
    refused(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert answer.headers["x-rate-limit-limit"] == "2"
    assert answer.headers["x-rate-limit-remaining"] == "0"
    assert answer.headers["x-rate-limit-reset-at-utc"].endswith("Z")


def test_a_broken_body(queue: httpx.Client, path: str) -> None:
    """400 for what is not JSON, and for JSON that is no object."""
    headers = {"Content-Type": "application/json"}
    refused(queue.post(path, content=b'{"prompt": ', headers=headers), 400, "malformed_body")
    refused(queue.post(path, content=b"[]", headers=headers), 400, "malformed_body")


def test_another_content_type(queue: httpx.Client, path: str) -> None:
    """406."""
    answer = queue.post(path, content=b"prompt=x", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert refused(answer, 406, "invalid_content_type").startswith("Invalid content type")


def test_too_large_a_body(client: httpx.Client, node: Node, path: str) -> None:
    """413, declared or not, and the connection's next request is answered as if nothing had been."""
    size = node.service.settings.max_body_bytes * 4
    headers = {"Content-Type": "application/json"}

    def undeclared() -> Iterator[bytes]:
        for _ in range(size // 1000):
            yield b" " * 1000

    refused(client.post(path, content=b" " * size, headers=headers), 413, "body_too_large")
    refused(client.post(path, content=undeclared(), headers=headers), 413, "body_too_large")
    refused(client.post(path, files={"image": ("a.png", b" " * size)}), 413, "body_too_large")
    assert client.get("/v1/get-user-credits").status_code == 200


def test_a_wrong_method(queue: httpx.Client, path: str) -> None:
    """405 in JSON, with Allow."""
    answer = queue.put(path)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_no_disk_left(idle: Node, queue: httpx.Client, path: str, params, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 before anything is accepted."""

    def full(_: object) -> None:
        raise StorageFull("The disk is full")

    monkeypatch.setattr(idle.service._admission, "admit", full)
    refused(queue.post(path, json=params), 503, "storage_full")


def test_our_fault(idle: Node, queue: httpx.Client, path: str, params, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 shows nothing of the inside and has the request's id."""

    def broken(_: object) -> None:
        raise ZeroDivisionError("internals")

    monkeypatch.setattr(idle.service._admission, "admit", broken)
    assert "internals" not in refused(queue.post(path, json=params), 500, "internal_error")
