import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from darkroom.api import errors
from darkroom.api.access import Access
from darkroom.api.body import read_body

MAX_BYTES = 60_000


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI(openapi_url=None)
    app.add_middleware(Access)
    errors.install(app)

    @app.post("/")
    async def echo(request: Request) -> dict[str, object]:
        body = await read_body(request, max_bytes=MAX_BYTES)
        return {"params": {name: repr(value) for name, value in body.params.items()}, "text": body.text}

    return TestClient(app)


JSON = {"content-type": "application/json"}


def test_json(client: TestClient) -> None:
    """A JSON object's values come as they are; a charset beside the type does no harm."""
    answer = client.post(
        "/",
        content='{"a": 1, "b": null, "c": "é"}'.encode(),
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    assert answer.json() == {"params": {"a": "1", "b": "None", "c": "'é'"}, "text": False}


def test_multipart(client: TestClient) -> None:
    """Text parts come as text, file parts as bytes, an empty file input as none."""
    answer = client.post(
        "/", data={"a": "1"}, files={"b": ("x.png", b"\x89PNG"), "c": ("", b"", "application/octet-stream")}
    )
    assert answer.json() == {"params": {"a": "'1'", "b": repr(b"\x89PNG"), "c": "''"}, "text": True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1, "\\ud800": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 9000,
        b"\xff\xfe\xfd",
        b'{"a": [' + b"1," * 25_000 + b"1]}",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_what_is_no_json_object_is_refused(client: TestClient, body: bytes) -> None:
    """400 malformed_body, whatever is wrong with it."""
    answer = client.post("/", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_body"


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(client: TestClient, body: bytes) -> None:
    """Nothing sent as JSON is our fault."""
    assert client.post("/", content=body, headers=JSON).status_code in (200, 400)


@given(st.binary(max_size=300), st.sampled_from(["", "; boundary=b", "; boundary=b; charset=unicode_escape"]))
def test_any_multipart_is_answered(client: TestClient, body: bytes, options: str) -> None:
    """Nothing sent as multipart is our fault."""
    for content in (body, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + body + b"\r\n--b--\r\n"):
        answer = client.post("/", content=content, headers={"content-type": f"multipart/form-data{options}"})
        assert answer.status_code in (200, 400)


def test_a_multipart_body_that_breaks_off_is_refused(client: TestClient) -> None:
    """Wherever it does: what its last part would have been is nobody's to guess."""
    whole = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n1\r\n' for name in (b"a", b"b")
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/", content=whole + b"--b--", headers=headers).status_code == 200
    for end in range(len(whole + b"--b-")):
        answer = client.post("/", content=(whole + b"--b-")[:end], headers=headers)
        assert answer.json().get("code") == "malformed_body", end


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-16", "hex", "nonsense", "latin-1"])
def test_multipart_is_utf8(client: TestClient, charset: str) -> None:
    """Text in another encoding is refused rather than guessed at."""
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\\ud800\r\n--b--\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    answer = client.post("/", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_body"


def test_a_field_may_stand_once(client: TestClient) -> None:
    """A parameter sent twice in multipart is refused by name: nothing says which one was meant."""
    answer = client.post("/", files=[("seed", (None, "1")), ("seed", (None, "2"))])
    assert answer.status_code == 400
    assert answer.json()["field"] == "seed"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""])
def test_another_content_type_is_refused(client: TestClient, content_type: str) -> None:
    """406, as the documentation has it."""
    answer = client.post("/", content=b"{}", headers={"content-type": content_type} if content_type else {})
    assert answer.status_code == 406
    assert answer.json()["code"] == "invalid_content_type"
    assert answer.json()["error"].startswith("Invalid content type")


def test_a_declared_size_is_enough_to_refuse(client: TestClient) -> None:
    """A body over the limit by its own word is not read."""
    answer = client.post("/", content=b"{}", headers=JSON | {"content-length": str(MAX_BYTES + 1)})
    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


def test_an_undeclared_size_is_counted(client: TestClient) -> None:
    """Without a Content-Length, or whatever it says, no more than the limit is read."""

    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BYTES // 100 + 1):
            yield b" " * 100

    assert client.post("/", content=endless(), headers=JSON).status_code == 413
    assert client.post("/", content=endless(), headers=JSON | {"content-length": "2"}).status_code == 413


def test_the_limit_itself_is_taken(client: TestClient) -> None:
    """A body of just the limit passes."""
    text = json.dumps({"a": ""})
    answer = client.post("/", content=json.dumps({"a": "x" * (MAX_BYTES - len(text))}), headers=JSON)
    assert answer.status_code == 200


def test_a_large_part_is_taken_up_to_the_body_limit(client: TestClient) -> None:
    """Text parts have no limit of their own: a picture may come as base64."""
    answer = client.post("/", files=[("image", (None, "x" * (MAX_BYTES - 500)))])
    assert answer.status_code == 200
