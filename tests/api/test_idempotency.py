import httpx
import pytest

EDITS = ("/v1/qwen-image-edit-plus", "/v2/qwen-image-edit-plus")


def test_the_same_name_is_the_same_request(queue: httpx.Client, params) -> None:
    """The second submit is answered as the first, and held no further credits."""
    name = {"Idempotency-Key": "once"}
    first = queue.post(EDITS[1], json=params, headers=name)
    held = queue.get("/v1/get-user-credits").json()
    second = queue.post(EDITS[1], json=params, headers=name)
    assert second.json() == first.json()
    assert second.headers["x-request-id"] == first.json()["request_id"]
    assert queue.get("/v1/get-user-credits").json() == held


@pytest.mark.parametrize("path", EDITS)
def test_another_request_under_the_same_name_is_409(queue: httpx.Client, path: str, params) -> None:
    """A name stands for one request."""
    name = {"Idempotency-Key": f"conflict {path}"}
    queue.post(EDITS[1], json=params, headers=name)
    answer = queue.post(path, json=params | {"seed": 8}, headers=name)
    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency_conflict"


@pytest.mark.parametrize("name", ["", "x" * 256, "käse", "tab\tbed"])
def test_a_name_is_printable_and_short(queue: httpx.Client, params, name: str) -> None:
    """Else 400 that names the header."""
    answer = queue.post(EDITS[1], json=params, headers=[(b"Idempotency-Key", name.encode("latin-1"))])
    assert answer.status_code == 400
    assert answer.json()["field"] == "Idempotency-Key"
