from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from darkroom import errors
from darkroom.api.access import Access
from darkroom.api.errors import STATUS, install, status_of


def leaves(cls: type[errors.DarkroomError]) -> Iterator[type[errors.DarkroomError]]:
    below = cls.__subclasses__()
    if not below:
        yield cls
    for sub in below:
        yield from leaves(sub)


@pytest.mark.parametrize("leaf", [*leaves(errors.DarkroomError)], ids=lambda leaf: leaf.__name__)
def test_every_error_has_a_status(leaf: type[errors.DarkroomError]) -> None:
    """No error is left to chance; a refused request's stands in the table itself, not under a family's."""
    assert 400 <= status_of(leaf.__new__(leaf)) < 600
    assert leaf in STATUS or not issubclass(leaf, errors.RequestError)


def test_codes_are_unique() -> None:
    """A code names one error."""
    codes = [leaf.code for leaf in leaves(errors.DarkroomError)]
    assert len(codes) == len(set(codes))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_middleware(Access)
    install(app)

    @app.get("/things/{name}")
    async def get(name: str) -> None:
        raise errors.InvalidField(f"seed must be a number, not \ud800 ({name})", field="seed")

    @app.delete("/things/{name}")
    async def delete(name: str) -> None:
        raise errors.RateLimited(limit=60, retry_after_s=1.2, reset_after_s=60)

    @app.get("/numbers/{number}")
    async def number(number: int) -> int:
        return number

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("internals")

    @app.get("/setup")
    async def setup() -> None:
        raise errors.BadSetting("/secret/path is wrong")

    return TestClient(app)


def test_the_body_of_an_error(client: TestClient) -> None:
    """Message, stable code, field and the request's id, as UTF-8 whatever the client sent."""
    answer = client.get("/things/a")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "seed must be a number, not \\ud800 (a)",
        "code": "invalid_field",
        "field": "seed",
        "request_id": answer.headers["x-request-id"],
    }


def test_an_unknown_path_is_json(client: TestClient) -> None:
    """404 has the one shape too."""
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "No such path: /nowhere",
        "code": "not_found",
        "request_id": answer.headers["x-request-id"],
    }


def test_a_wrong_method_is_told_the_right_ones(client: TestClient) -> None:
    """405 is JSON and Allow names the methods of every route with this path."""
    answer = client.put("/things/a")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, DELETE"
    assert answer.json()["code"] == "method_not_allowed"
    assert "GET, DELETE" in answer.json()["error"]


def test_a_rate_limit_says_when_to_come_back(client: TestClient) -> None:
    """429 has Retry-After, rounded up, and the counters."""
    answer = client.delete("/things/a")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["x-rate-limit-limit"] == "60"
    assert answer.headers["x-rate-limit-remaining"] == "0"
    assert answer.headers["x-rate-limit-reset-at-utc"].endswith("Z")


def test_the_frameworks_own_refusals_have_the_same_shape(client: TestClient) -> None:
    """What FastAPI finds wrong is answered like what we find wrong."""
    answer = client.get("/numbers/x")
    assert answer.status_code == 400
    assert answer.json().keys() == {"error", "code", "field", "request_id"}
    assert answer.json()["field"] == "number"


@pytest.mark.parametrize("path", ["/broken", "/setup"])
def test_our_fault_shows_no_internals(client: TestClient, path: str) -> None:
    """500 says only where the log has it."""
    answer = client.get(path)
    assert answer.status_code == 500
    assert answer.json() == {
        "error": f"Internal error; the server's log has it under request {answer.headers['x-request-id']}",
        "code": "internal_error",
        "request_id": answer.headers["x-request-id"],
    }
