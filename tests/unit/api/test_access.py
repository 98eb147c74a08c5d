from collections.abc import Iterator

import pytest
import structlog
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from darkroom.api.access import Access


async def plain(request: Request) -> Response:
    return PlainTextResponse(request.state.request_id)


async def replayed(request: Request) -> Response:
    request.state.request_id = "earlier"
    return PlainTextResponse(structlog.contextvars.get_contextvars()["request_id"])


async def left(request: Request) -> Response:
    raise ClientDisconnect


async def breaks_off(request: Request) -> Response:
    def body() -> Iterator[bytes]:
        yield b"first"
        raise ZeroDivisionError

    return StreamingResponse(body())


@pytest.fixture(scope="module")
def client() -> TestClient:
    endpoints = (plain, replayed, left, breaks_off)
    routes = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Access)]))


def test_every_request_has_its_own_id(client: TestClient) -> None:
    """What the endpoint sees is what the answer says, and no two are alike."""
    first, second = client.get("/plain"), client.get("/plain")
    assert first.headers["x-request-id"] == first.text
    assert first.text != second.text


def test_a_clients_own_id_is_not_taken(client: TestClient) -> None:
    """The id names a job, so a stranger must not choose it."""
    assert client.get("/plain", headers={"x-request-id": "mine"}).headers["x-request-id"] != "mine"


def test_an_answer_for_an_earlier_request_has_its_id(client: TestClient) -> None:
    """Where an endpoint answers for another request, the header names that one."""
    answer = client.get("/replayed")
    assert answer.headers["x-request-id"] == "earlier"
    assert answer.text != "earlier"


def test_one_line_a_request(client: TestClient) -> None:
    """With method, path, status and time, and without the query, where a link's signature stands."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = client.get("/plain?signature=secret")
    (line,) = lines
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": answer.text,
        "method": "GET",
        "path": "/plain",
        "status": 200,
    }


def test_a_client_that_left_is_no_failure(client: TestClient) -> None:
    """It is noted, and nothing else."""
    with capture_logs() as lines, pytest.raises(AssertionError):
        client.get("/left")  # the test client minds that there is no answer; a client that left does not
    assert [(line["event"], line["status"]) for line in lines] == [("request", 499)]


def test_an_answer_that_breaks_off_is_not_papered_over(client: TestClient) -> None:
    """Once an answer has begun, an error can only end the connection; it is logged with the request's id."""
    with capture_logs() as lines, pytest.raises(ZeroDivisionError):
        client.get("/breaks_off")
    assert [line["event"] for line in lines] == ["request failed", "request"]
