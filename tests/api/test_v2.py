import time
from base64 import b64decode

import httpx
import pytest

from serving import PATIENCE_S, Gallery, Node, run, submit_running

EDIT = "/v2/qwen-image-edit-plus"


def test_a_submit_says_where_the_request_is(queue: httpx.Client, idle: Node, params) -> None:
    """Absolute addresses on the host that was asked, which answer as they stand."""
    answer = queue.post(EDIT, json=params)
    request_id = answer.headers["x-request-id"]
    assert answer.status_code == 200
    assert answer.json() == {
        "request_id": request_id,
        "status": "QUEUED",
        "poll_url": f"{idle.url}/v1/requests/{request_id}",
        "status_url": f"{idle.url}/v2/requests/{request_id}/status",
        "response_url": f"{idle.url}/v2/requests/{request_id}",
    }
    waiting = {
        "status": "QUEUED",
        "request_id": request_id,
        "status_url": answer.json()["status_url"],
        "response_url": answer.json()["response_url"],
        "metrics": {},
    }
    for name in ("poll_url", "status_url", "response_url"):
        asked = queue.get(answer.json()[name])
        assert asked.status_code == 200
        assert asked.json() == waiting


def test_a_completed_request(client: httpx.Client, node: Node, params) -> None:
    """The status gives the times, the result all the rest; both are the same whenever they are asked for."""
    submitted = run(client, params | {"image_format": "png"})
    status, result = client.get(submitted["status_url"]), client.get(submitted["response_url"])
    assert status.status_code == result.status_code == 200
    body, metrics = result.json(), result.json()["metrics"]
    times = {name: metrics[name] for name in ("inference_time", "queue_time", "total_time")}
    assert status.json() == {"status": "COMPLETED", "request_id": submitted["request_id"], "metrics": times}
    assert 0 < metrics["inference_time"] <= metrics["total_time"] + 0.001
    assert metrics.keys() == {"cost", "remaining_credits", *times}
    (image,) = body["images"]
    picture = httpx.get(body["output"]).content
    assert image["url"] == body["output"]
    assert body["output"].startswith(node.url + "/files/")
    assert image["content_type"] == "image/png"
    assert image["file_name"] == "qwen-image-edit-plus-7.png"
    assert image["file_size"] == str(len(picture))
    assert (body["error"], body["seed"], body["prompt"]) == (None, "7", "turn it blue")
    assert body["timings"].keys() >= {"inference", "prepare", "encode", "denoise", "decode"}
    assert "image" not in body
    assert client.get(submitted["response_url"]).json() == body


def test_base64_is_inline_too(client: httpx.Client, params) -> None:
    """`base64: true` puts the picture itself beside its link."""
    body = client.get(run(client, params | {"base64": True})["response_url"]).json()
    assert b64decode(body["image"]) == httpx.get(body["output"]).content


def test_the_price_is_charged(node: Node, params) -> None:
    """A completed request costs its card's price, and the answer's counter is the account's."""
    with node.client(node.new_key("payer", credits=10)) as client:
        metrics = client.get(run(client, params)["response_url"]).json()["metrics"]
        assert metrics["cost"] == node.service.catalogue["qwen-image-edit-plus"].price_micro / 1e6
        assert metrics["remaining_credits"] == pytest.approx(10 - metrics["cost"])
        assert client.get("/v1/get-user-credits").json() == {
            "credits": metrics["remaining_credits"],
            "free-credits": 0,
        }


def test_a_failed_request_is_422(client: httpx.Client, params, pictures: Gallery) -> None:
    """Status and result say why, under 422, without a cost."""
    submitted = run(client, params | {"image": pictures.url("missing")})
    status, result = client.get(submitted["status_url"]), client.get(submitted["response_url"])
    assert status.status_code == result.status_code == 422
    assert status.json() == result.json()
    body = result.json()
    assert body["error"]
    assert body["metrics"].keys() <= {"queue_time", "total_time"}
    assert (body["status"], body["code"], body["field"]) == ("FAILED", "image_unreachable", "image")
    assert body["request_id"] == submitted["request_id"]


@pytest.mark.parametrize("path", ["/v2/requests/nobody", "/v2/requests/nobody/status", "/v1/requests/nobody"])
def test_an_unknown_request_is_404(client: httpx.Client, path: str) -> None:
    """By its id, to the letter."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "Request nobody not found"
    assert answer.json()["code"] == "unknown_request"


def test_a_request_is_its_keys_alone(idle: Node, queue: httpx.Client, params) -> None:
    """To another key it does not exist, and can't be cancelled."""
    submitted = queue.post(EDIT, json=params).json()
    with idle.client(idle.new_key("stranger")) as stranger:
        for method, name in (("GET", "status_url"), ("GET", "response_url"), ("DELETE", "response_url")):
            answer = stranger.request(method, submitted[name])
            assert answer.status_code == 404
            assert answer.json()["error"] == f"Request {submitted['request_id']} not found"
    assert queue.get(submitted["status_url"]).json()["status"] == "QUEUED"


def test_a_queued_request_is_cancelled_at_once(idle: Node, params) -> None:
    """It ends FAILED with code cancelled and costs nothing."""
    with idle.client(idle.new_key("fickle", credits=5)) as client:
        submitted = client.post(EDIT, json=params).json()
        answer = client.delete(submitted["response_url"])
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["code"]) == ("FAILED", "cancelled")
        assert client.get(submitted["status_url"]).json() == answer.json()
        assert client.get("/v1/get-user-credits").json()["credits"] == 5
        assert client.delete(submitted["response_url"]).json() == answer.json()


def test_a_running_request_is_cancelled_within_a_step(client: httpx.Client, params) -> None:
    """It is asked to stop, says so with 202, ends FAILED with code cancelled and is paid back."""
    before = client.get("/v1/get-user-credits").json()
    submitted = submit_running(client, params)
    answer = client.delete(submitted["response_url"])
    assert answer.status_code == 202
    assert answer.json()["status"] == "PROCESSING"
    assert answer.json()["progress"]["steps"] == 100
    deadline = time.monotonic() + PATIENCE_S
    while (answer := client.get(submitted["response_url"])).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answer.status_code == 422
    assert answer.json()["code"] == "cancelled"
    assert client.get("/v1/get-user-credits").json() == before


def test_a_request_whose_picture_is_waited_for_is_cancelled_at_once(
    client: httpx.Client, params, pictures: Gallery
) -> None:
    """No device holds it: it is still queued, and others are made meanwhile."""
    pictures.knocked.clear()
    pictures.open_gate.clear()
    submitted = client.post(EDIT, json=params | {"image": pictures.url("held")}).json()
    assert pictures.knocked.wait(PATIENCE_S)
    assert client.post("/v1/qwen-image-edit-plus", json=params).status_code == 200
    assert client.get(submitted["status_url"]).json()["status"] == "QUEUED"
    answer = client.delete(submitted["response_url"])
    assert (answer.status_code, answer.json()["code"]) == (200, "cancelled")
    pictures.open_gate.set()
