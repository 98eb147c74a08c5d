"""Webhooks over plain HTTP: a real receiver is told, with a signature that the official verifier takes."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from darkroom.api import courier
from darkroom.api.openapi import openapi
from darkroom.catalogue import read_catalogue
from darkroom.ledger import sqlite_outbox
from darkroom.settings import Settings
from document import Document
from ledgers import RESULT
from serving import PATIENCE_S, Gallery, Letter, Mailbox, Node, run, serving

DOCUMENT = Document(openapi(read_catalogue(), Settings()))
COMPLETED, FAILED = "request.completed", "request.failed"
AWAY = "https://shop.example.com/hook"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not taken is sent again at once, and the last time."""
    monkeypatch.setattr(sqlite_outbox, "RETRY_S", (0.1, 0.1))


def add(client: httpx.Client, url: str, *types: str) -> dict[str, Any]:
    answer = client.post("/webhook/add", json={"webhook_url": url, "event": {"types": [*types]}})
    assert answer.status_code == 200, answer.text
    return answer.json()["webhook"]


def log(client: httpx.Client, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get("/webhook/dispatch-logs", params={"webhook_id": webhook["webhook_id"]})
    assert answer.status_code == 200, answer.text
    DOCUMENT.hold("list_dispatches", answer)
    return answer.json()["logs"]


def settled(client: httpx.Client, webhook: dict[str, Any], done: Callable[[list[dict[str, Any]]], bool]) -> Any:
    """The log, once it says so: a receiver has a message before its sender has noted that."""
    deadline = time.monotonic() + PATIENCE_S
    while not done(found := log(client, webhook)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def opened(letter: Letter, webhook: dict[str, Any]) -> dict[str, Any]:
    """Its message, whose signature is in order."""
    return Verifier(webhook["secret"]).verify(letter.body, letter.headers)


def shape_of(kind: str) -> dict[str, Any]:
    return DOCUMENT.document["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_a_completed_request_is_told_of(fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """By POST, signed, with what the result's address answers: links on the host that the webhook was added under."""
    webhook = add(fresh, receiver.url("/completed"), COMPLETED, FAILED)
    submitted = run(fresh, params)
    (letter,) = receiver.letters("/completed", 1)
    message = opened(letter, webhook)
    result = fresh.get(submitted["response_url"]).json()
    assert message["type"] == COMPLETED
    assert message["data"] == result
    assert httpx.get(message["data"]["output"]).headers["content-type"] == "image/webp"
    assert letter.headers["content-type"] == "application/json"
    DOCUMENT.check(shape_of(COMPLETED), message)
    (row,) = settled(fresh, webhook, lambda rows: rows[0]["status"] == "DELIVERED")
    assert row["message_id"] == letter.headers["webhook-id"]
    assert (row["request_id"], row["attempts"], row["response_code"]) == (submitted["request_id"], 1, 204)
    assert (row["error"], row["next_attempt_at"]) == (None, None)


def test_a_failed_request_is_told_of(fresh: httpx.Client, receiver: Mailbox, pictures: Gallery, params) -> None:
    """With the error and its code, as the result's address answers."""
    webhook = add(fresh, receiver.url("/failed"), COMPLETED, FAILED)
    submitted = run(fresh, params | {"image": pictures.url("missing")})
    message = opened(receiver.letters("/failed", 1)[0], webhook)
    assert message["type"] == FAILED
    assert message["data"] == fresh.get(submitted["response_url"]).json()
    assert message["data"]["code"] == "image_unreachable"
    DOCUMENT.check(shape_of(FAILED), message)


def test_a_picture_in_base64_is_not_in_the_message(fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """Its link is."""
    webhook = add(fresh, receiver.url("/base64"), COMPLETED)
    run(fresh, params | {"base64": True})
    data = opened(receiver.letters("/base64", 1)[0], webhook)["data"]
    assert "image" not in data
    assert data["output"].startswith("http")


def test_another_body_or_secret_is_not_in_order(fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """The signature is over the message's id, time and bytes, and with this webhook's secret."""
    webhook, other = add(fresh, receiver.url("/signed"), COMPLETED), add(fresh, receiver.url("/signed too"), COMPLETED)
    run(fresh, params)
    (letter,) = receiver.letters("/signed", 1)
    opened(letter, webhook)
    with pytest.raises(WebhookVerificationError):
        opened(letter, other)
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(letter.body.replace(b"COMPLETED", b"COMPLETEd"), letter.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(letter.body, letter.headers | {"webhook-id": "msg_other"})


def test_what_is_not_taken_is_sent_again(soon, fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """The same message under the same id, until an answer of 2xx; the log says what was answered last."""
    receiver.answers["/again"] = [500, 302, 200]
    webhook = add(fresh, receiver.url("/again"), COMPLETED)
    run(fresh, params)
    letters = receiver.letters("/again", 3)
    assert len({letter.headers["webhook-id"] for letter in letters}) == 1
    assert len({letter.body for letter in letters}) == 1
    (row,) = settled(fresh, webhook, lambda rows: rows[0]["status"] == "DELIVERED")
    assert (row["attempts"], row["response_code"]) == (3, 200)


def test_what_is_never_taken_is_given_up(soon, fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """A redirect is no acceptance, and is not gone after. The next message is sent all the same."""
    receiver.answers["/refusing"] = [302, 302, 302]
    webhook = add(fresh, receiver.url("/refusing"), COMPLETED)
    run(fresh, params)
    (row,) = settled(fresh, webhook, lambda rows: rows[0]["status"] == "FAILED")
    assert (row["attempts"], row["response_code"]) == (3, 302)
    assert row["error"] == "the receiver answered 302"
    run(fresh, params)
    receiver.letters("/refusing", 4)
    assert not [letter for letter in receiver._letters if letter.path == "/elsewhere"]


def test_a_receiver_that_hangs_holds_up_nobody_else(
    fresh: httpx.Client, receiver: Mailbox, params, monkeypatch
) -> None:
    """Another webhook of the key is told meanwhile; the silent one is given so long and no longer."""
    monkeypatch.setattr(courier, "ATTEMPT_S", 1.5)
    receiver.answers["/hanging"] = [0, 0]
    hanging = add(fresh, receiver.url("/hanging"), COMPLETED)
    quick = add(fresh, receiver.url("/quick"), COMPLETED)
    for _ in range(2):
        run(fresh, params)
    receiver.letters("/quick", 2)
    settled(fresh, quick, lambda rows: [row["status"] for row in rows] == ["DELIVERED"] * 2)
    rows = settled(fresh, hanging, lambda rows: any(row["error"] for row in rows))
    receiver.open_gate.set()
    assert {row["error"] for row in rows} <= {None, "the receiver did not answer within 1.5 s"}
    assert {row["status"] for row in rows} == {"PENDING"}


def test_a_receiver_that_is_not_there_is_tried_again(fresh: httpx.Client, receiver: Mailbox, params) -> None:
    """Its log says what the trouble is, and when it is tried next."""
    webhook = add(fresh, "http://nobody.invalid/hook", COMPLETED)
    run(fresh, params)
    (row,) = settled(fresh, webhook, lambda rows: rows[0]["error"] is not None)
    assert (row["status"], row["error"]) == ("PENDING", "the name nobody.invalid was not found")
    assert row["response_code"] is None
    assert row["next_attempt_at"] > row["sent_at"]


def test_what_one_service_has_not_sent_is_sent_by_the_next(tmp_path, receiver: Mailbox, params) -> None:
    """Messages are on disk like jobs. Their links are on `public_url` where there is one."""
    settings = Settings(data=tmp_path, checkpoint="/nowhere", fetch_allow=(receiver.address,))
    with serving(settings) as first:
        secret = first.new_key("test")
        with first.client(secret) as client:
            webhook = add(client, receiver.url("/later"), COMPLETED)
            job = client.post("/v2/qwen-image-edit-plus", json=params).json()["request_id"]
            _cut_off(first)
            _, lease = first.service.ledger.claim("a worker")
            first.service.ledger.complete(lease, RESULT)
    assert not [letter for letter in receiver._letters if letter.path == "/later"]
    with serving(settings.model_copy(update={"public_url": "https://images.example.com"})):
        message = opened(receiver.letters("/later", 1)[0], webhook)
    assert message["data"]["request_id"] == job
    assert message["data"]["output"].startswith("https://images.example.com/files/")


def _cut_off(node: Node) -> None:
    """Have this service send nothing more."""
    node.service.ledger.outbox.claim = lambda **_: []


def test_webhooks_are_listed_changed_and_ended(idle: Node) -> None:
    """Each call answers with the webhook as it is now."""
    with idle.client(idle.new_key("keeper")) as client:
        webhook = add(client, AWAY, COMPLETED)
        assert webhook["event"] == {"types": [COMPLETED]}
        assert webhook["is_active"]
        changed = {"webhook_id": webhook["webhook_id"], "webhook_url": f"{AWAY}/2", "event": {"types": [FAILED]}}
        assert client.post("/webhook/update", json=changed).json()["webhook"] == webhook | changed
        assert client.get("/webhook/get").json() == {"webhooks": [webhook | changed]}
        ended = client.get("/webhook/inactive", params={"webhook_id": webhook["webhook_id"]}).json()["webhook"]
        assert ended == webhook | changed | {"is_active": False}
        assert client.post("/webhook/update", json=changed).json()["code"] == "unknown_webhook"


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"webhook_url": None}, "webhook_url", "missing"),
        ({"webhook_url": 7}, "webhook_url", "text"),
        ({"webhook_url": "shop.example.com"}, "webhook_url", "https://"),
        ({"webhook_url": "http://127.0.0.1/hook"}, "webhook_url", "not public"),
        ({"webhook_url": "https://me:secret@shop.example.com/"}, "webhook_url", "password"),
        ({"event": None}, "event", COMPLETED),
        ({"event": [COMPLETED]}, "event", COMPLETED),
        ({"event": {"types": []}}, "event", COMPLETED),
        ({"event": {"types": COMPLETED}}, "event", COMPLETED),
        ({"event": {"types": [COMPLETED], "more": 1}}, "event", COMPLETED),
        ({"event": {"types": ["PIXELFLOW"]}}, "event", "'PIXELFLOW'"),
        ({"event": {"types": [[]]}}, "event", FAILED),
        ({"url": AWAY}, "url", "webhook_url"),
    ],
)
@pytest.mark.parametrize("way", ["add", "update"])
def test_what_can_not_be_a_webhook_is_refused(queue: httpx.Client, way: str, changed, field: str, words: str) -> None:
    """With the parameter's name and what it should be."""
    params = {"webhook_url": AWAY, "event": {"types": [COMPLETED]}} | ({"webhook_id": "x"} if way == "update" else {})
    answer = queue.post(
        f"/webhook/{way}", content=json.dumps(params | changed), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert words in answer.json()["error"]


@pytest.mark.parametrize("path", ["/webhook/inactive", "/webhook/dispatch-logs"])
def test_which_webhook_has_to_be_said(queue: httpx.Client, path: str) -> None:
    """In the query, under its name."""
    for params in ({}, {"webhook_id": ""}, {"webhook": "x"}):
        assert queue.get(path, params=params).status_code == 400
    assert queue.post("/webhook/update", json={"webhook_url": AWAY, "event": {"types": [FAILED]}}).json()["field"] == (
        "webhook_id"
    )


def test_another_keys_webhook_is_unknown(idle: Node, queue: httpx.Client) -> None:
    """Not seen, not changed, not ended."""
    webhook = add(queue, AWAY, COMPLETED)
    named = {"webhook_id": webhook["webhook_id"]}
    with idle.client(idle.new_key("nosy")) as nosy:
        assert nosy.get("/webhook/get").json() == {"webhooks": []}
        changed = named | {"webhook_url": AWAY, "event": {"types": [FAILED]}}
        for answer in (
            nosy.post("/webhook/update", json=changed),
            nosy.get("/webhook/inactive", params=named),
            nosy.get("/webhook/dispatch-logs", params=named),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_webhook")
    assert webhook in queue.get("/webhook/get").json()["webhooks"]
