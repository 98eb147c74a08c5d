from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from darkroom.settings import Settings
from serving import Node, picture, serving

UPLOAD = "/upload-asset"
EDIT = "/v1/qwen-image-edit-plus"


@pytest.fixture(scope="module")
def link(client: httpx.Client, photo: str) -> str:
    """Of an upload."""
    (url,) = client.post(UPLOAD, json={"data_urls": [photo]}).json()["file_urls"]
    return url


def test_an_upload_gives_links(client: httpx.Client, node: Node, photo: str) -> None:
    """One a picture, in their order, on this server's own host, each giving the picture back without a key."""
    answer = client.post(UPLOAD, json={"data_urls": [photo, photo]})
    assert answer.status_code == 200
    body = answer.json()
    assert body["message"] == "Files uploaded successfully"
    assert len(set(body["file_urls"])) == 2
    for url in body["file_urls"]:
        assert url.startswith(node.url + "/uploads/")
        fetched = httpx.get(url)
        assert fetched.content == picture()
        assert fetched.headers["content-type"] == "image/png"
        assert fetched.headers["x-content-type-options"] == "nosniff"
        assert 0 < int(fetched.headers["cache-control"].split("max-age=")[1].split(",")[0]) <= 86400
        assert httpx.head(url).headers["content-length"] == str(len(picture()))


def test_an_upload_is_a_pictures_address(client: httpx.Client, params, link: str) -> None:
    """An edit that names it gives the same picture as one that carries it, under any name of the server's."""
    wanted = client.post(EDIT, json=params)
    elsewhere = "https://pictures.example/some/prefix" + link.removeprefix(f"http://{urlsplit(link).netloc}")
    for address in (link, elsewhere):
        answer = client.post(EDIT, json=params | {"image": address})
        assert answer.status_code == 200, answer.text
        pixels = [Image.open(BytesIO(each.content)).tobytes() for each in (answer, wanted)]
        assert pixels[0] == pixels[1]


def test_a_result_is_a_pictures_address(client: httpx.Client, params) -> None:
    """Edits can be chained: the link of one's result is taken by the next."""
    first = client.post(EDIT, json=params)
    output = client.get(f"/v2/requests/{first.headers['x-request-id']}").json()["output"]
    assert client.post(EDIT, json=params | {"image": output}).status_code == 200


def test_a_changed_link_gives_nothing(client: httpx.Client, params, link: str) -> None:
    """403 to a reader; to an edit it is any address, and a private one at that."""
    changed = link.replace("signature=", "signature=0")
    assert httpx.get(changed).json()["code"] == "invalid_link"
    refused = client.post(EDIT, json=params | {"image": "http://127.0.0.1" + changed[changed.index("/uploads") :]})
    assert (refused.status_code, refused.json()["field"]) == (400, "image")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "data_urls"),
        ({"data_urls": ["bm90IGEgcGljdHVyZQ=="]}, "data_urls[0]"),
        ({"data_urls": [], "x": 1}, "x"),
    ],
)
def test_a_bad_upload_is_refused(queue: httpx.Client, body: dict, field: str) -> None:
    """400 with the field."""
    answer = queue.post(UPLOAD, json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_an_upload_is_json(client: httpx.Client, node: Node) -> None:
    """406 for another content type, 413 for too much, 401 without a key."""
    assert client.post(UPLOAD, files={"data_urls": b"x"}).status_code == 406
    assert client.post(UPLOAD, json={"data_urls": ["x" * 2_000_000]}).status_code == 413
    assert httpx.post(node.url + UPLOAD, json={}).status_code == 401


def test_an_upload_past_its_time(tmp_path: Path, photo: str, params) -> None:
    """It is gone for readers and for edits, each told so."""
    settings = Settings(data=tmp_path, checkpoint="/nowhere", upload_retention_s=0.001)
    with serving(settings) as node, node.client(node.new_key("test")) as client:
        (url,) = client.post(UPLOAD, json={"data_urls": [photo]}).json()["file_urls"]
        gone = client.get(url)
        assert (gone.status_code, gone.json()["code"]) == (404, "link_expired")
        answer = client.post(EDIT, json=params | {"image": url})
        assert (answer.status_code, answer.json()["field"]) == (400, "image")
        assert "expired" in answer.json()["error"]
