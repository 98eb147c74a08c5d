from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from darkroom.settings import Settings
from serving import Node, serving

SAID = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pictures.example:8443"}
EDIT = "/v2/qwen-image-edit-plus"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A service that trusts whoever connects from this machine."""
    data: Path = tmp_path_factory.mktemp("behind")
    with serving(Settings(data=data, checkpoint="/nowhere", trusted_proxies=("127.0.0.0/8",))) as running:
        yield running


@pytest.fixture(scope="module")
def proxied(behind: Node) -> Iterator[httpx.Client]:
    with behind.client(behind.new_key("test")) as client:
        yield client


def base(answer: httpx.Response) -> str:
    """The host that the answer's addresses are on, the same for all of them."""
    body = answer.json()
    assert answer.status_code == 200, answer.text
    (found,) = {
        body["poll_url"].partition("/v1/requests/")[0],
        body["status_url"].partition("/v2/requests/")[0],
        body["response_url"].partition("/v2/requests/")[0],
    }
    return found


def test_a_trusted_proxy_is_believed(proxied: httpx.Client, params) -> None:
    """Addresses are on the scheme and host that the proxy says the client asked."""
    assert base(proxied.post(EDIT, json=params, headers=SAID)) == "https://pictures.example:8443"


@pytest.mark.parametrize(
    ("said", "scheme", "host"),
    [
        ({}, "http", None),
        ({"X-Forwarded-Proto": "https"}, "https", None),
        ({"X-Forwarded-Host": "[::1]:80"}, "http", "[::1]:80"),
        ({"X-Forwarded-Host": "forged.example, right.example"}, "http", "right.example"),
        ({"X-Forwarded-Proto": "http, https"}, "https", None),
        ({"X-Forwarded-Host": "a b"}, "http", None),
        ({"X-Forwarded-Host": "a/../b"}, "http", None),
        ({"X-Forwarded-Host": "user@host", "X-Forwarded-Proto": "ftp"}, "http", None),
    ],
    ids=str,
)
def test_what_a_proxy_may_say(
    proxied: httpx.Client, behind: Node, params, said: dict[str, str], scheme: str, host: str | None
) -> None:
    """The last value is the trusted proxy's own; what is no scheme or host is as if nothing had been said."""
    own = behind.url.removeprefix("http://")
    assert base(proxied.post(EDIT, json=params, headers=said)) == f"{scheme}://{host or own}"


def test_nobody_else_is_believed(queue: httpx.Client, idle: Node, params) -> None:
    """By default no proxy is trusted, and neither is this machine."""
    assert base(queue.post(EDIT, json=params, headers=SAID)) == idle.url
