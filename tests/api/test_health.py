import httpx
import pytest

from serving import Node, run


def test_a_live_process(idle: Node) -> None:
    """It answers, whatever its engine does, and without a key."""
    answer = httpx.get(f"{idle.url}/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "LIVE"})


def test_an_engine_that_is_ready(node: Node, client: httpx.Client, params) -> None:
    """200 with what it runs on and how many jobs there are in each state."""
    run(client, params)
    answer = httpx.get(f"{node.url}/health/ready")
    body = answer.json()
    assert (answer.status_code, body["status"], body["reason"]) == (200, "READY", None)
    engine = {"checkpoint": node.service.settings.checkpoint, "device": "cpu", "dtype": "float32"}
    assert body["engine"].items() > engine.items()
    assert body["jobs"].keys() == {"QUEUED", "PROCESSING", "COMPLETED", "FAILED"}
    assert body["jobs"]["COMPLETED"] >= 1


def test_a_disk_without_room(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the reason: the engine is ready, but nothing is begun."""
    full = node.service.settings.model_copy(update={"min_free_bytes": 2**60})
    monkeypatch.setattr(node.service, "settings", full)
    answer = httpx.get(f"{node.url}/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "NO_ROOM")
    assert str(full.data) in answer.json()["reason"]
    assert answer.json()["engine"]["device"] == "cpu"


def test_an_engine_that_cant_be_set_up(idle: Node, queue: httpx.Client, params) -> None:
    """503 with the state and the reason."""
    answer = queue.get("/health/ready")
    while answer.json()["status"] == "STARTING":
        # Each v1 call waits a little for a job that can't run yet.
        queue.post("/v1/qwen-image-edit-plus", json=params)
        answer = queue.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "SETUP_FAILED"
    assert "/nowhere" in answer.json()["reason"]
    assert answer.json()["engine"] is None
