import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from darkroom.links import FILES, Links
from serving import Node, run


@pytest.fixture(scope="module")
def result(client: httpx.Client, photo: str) -> dict:
    params = {"image": photo, "prompt": "x", "seed": 3, "num_inference_steps": 1, "guidance_scale": 1}
    return client.get(run(client, params)["response_url"]).json()


@pytest.fixture
def links(node: Node) -> Links:
    return node.service.links


@pytest.fixture(scope="module")
def browser() -> Iterator[httpx.Client]:
    """No key: the link is enough."""
    with httpx.Client() as client:
        yield client


def test_a_link_gives_the_picture(browser: httpx.Client, result) -> None:
    """With type, length, ETag, a file name and leave to keep it privately until it expires."""
    answer = browser.get(result["output"])
    assert answer.status_code == 200
    headers = answer.headers
    assert headers["content-type"] == "image/webp"
    assert headers["content-length"] == str(len(answer.content)) == result["images"][0]["file_size"]
    assert headers["content-disposition"] == 'inline; filename="qwen-image-edit-plus-3.webp"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["cache-control"].startswith("private, max-age=")
    assert headers["x-content-type-options"] == "nosniff"
    head = browser.head(result["output"])
    assert head.content == b""
    for name in ("content-type", "content-length", "content-disposition", "etag", "last-modified"):
        assert head.headers[name] == headers[name]


def test_a_part_of_it(browser: httpx.Client, result) -> None:
    """Range gives the bytes asked for; If-Range by the ETag holds."""
    whole = browser.get(result["output"])
    headers = {"Range": "bytes=2-9", "If-Range": whole.headers["etag"]}
    part = browser.get(result["output"], headers=headers)
    assert part.status_code == 206
    assert part.content == whole.content[2:10]
    assert part.headers["content-range"] == f"bytes 2-9/{len(whole.content)}"
    assert browser.get(result["output"], headers=headers | {"If-Range": '"other"'}).status_code == 200


def test_a_part_beyond_it(browser: httpx.Client, result) -> None:
    """416 in the one shape, with the length there is."""
    answer = browser.get(result["output"], headers={"Range": "bytes=99999999-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{result['images'][0]['file_size']}"
    assert answer.json()["code"] == "invalid_range"
    assert browser.get(result["output"], headers={"Range": "bytes=x"}).json()["code"] == "invalid_range"


def test_who_has_it_already(browser: httpx.Client, result) -> None:
    """304 without the bytes, to the ETag that came with them."""
    etag = browser.get(result["output"]).headers["etag"]
    answer = browser.get(result["output"], headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag


@pytest.mark.parametrize(
    "query", ["", "?expires=9999999999", "?expires=x&signature=y", "?expires=9999999999&signature=é"]
)
def test_no_link_of_ours(browser: httpx.Client, result, query: str) -> None:
    """403 for a link that was not signed here."""
    answer = browser.get(result["output"].partition("?")[0] + query)
    assert answer.status_code == 403
    assert answer.json()["code"] == "invalid_link"


def test_a_changed_link(browser: httpx.Client, result) -> None:
    """A later expiry is not for the asking."""
    expires = parse_qs(urlsplit(result["output"]).query)["expires"][0]
    answer = browser.get(result["output"].replace(expires, str(int(expires) + 1)))
    assert answer.status_code == 403


def test_an_expired_link(browser: httpx.Client, node: Node, result, links: Links) -> None:
    """404 once its time is over."""
    path = links.path(FILES, result["request_id"], "a.webp", expires_at=time.time() - 1)
    answer = browser.get(node.url + path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "link_expired"


def test_a_link_whose_result_is_gone(browser: httpx.Client, node: Node, links: Links) -> None:
    """404 too: the link outlived what it led to."""
    path = links.path(FILES, "forgotten", "a.webp", expires_at=time.time() + 60)
    answer = browser.get(node.url + path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "link_expired"
