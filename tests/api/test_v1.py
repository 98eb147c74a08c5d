import json
from base64 import b64decode, b64encode
from io import BytesIO

import httpx
import pytest
from PIL import Image

from serving import Gallery, Node, hang_up, picture

EDIT = "/v1/qwen-image-edit-plus"


@pytest.mark.parametrize("image_format", ["webp", "png", "jpeg"])
def test_a_picture_comes_back(client: httpx.Client, params, image_format: str) -> None:
    """v1 answers with the picture itself, in the format asked for, and says the rest in headers."""
    answer = client.post(EDIT, json=params | {"image_format": image_format})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{image_format}"
    image = Image.open(BytesIO(answer.content))
    assert image.format == image_format.upper()
    assert json.loads(answer.headers["x-output-metadata"]) == {
        "height": image.height,
        "width": image.width,
        "samples": 1,
    }
    assert answer.headers["x-seed-value"] == "7"
    assert float(answer.headers["x-generation-time"]) > 0
    assert float(answer.headers["x-cost"]) > 0
    assert float(answer.headers["x-remaining-credits"]) < 1000


def test_the_rate_is_counted_down(node: Node, params) -> None:
    """Beside the picture, for a key that has a rate."""
    with node.client(node.new_key("counted", rate_per_minute=5)) as client:
        headers = client.post(EDIT, json=params).headers
    assert (headers["x-rate-limit-limit"], headers["x-rate-limit-remaining"]) == ("5", "4")
    assert headers["x-rate-limit-reset-at-utc"].endswith("Z")


def test_base64_comes_as_json(client: httpx.Client, params) -> None:
    """`base64: true` answers with JSON, the picture without a data URL's head."""
    answer = client.post(EDIT, json=params | {"base64": True, "image_format": "png"})
    body = answer.json()
    assert Image.open(BytesIO(b64decode(body.pop("image"), validate=True))).format == "PNG"
    assert body.pop("infer_time") > 0
    assert body == {"status": "Success", "outputs": 1, "image_format": "png", "seed": 7}
    assert answer.headers["x-seed-value"] == "7"


def test_every_way_to_send_a_picture_gives_the_same_one(
    client: httpx.Client, params, photo: str, pictures: Gallery
) -> None:
    """Data URL, bare base64, address, multipart text and multipart file are the same request."""
    wanted = client.post(EDIT, json=params)
    assert wanted.status_code == 200
    text = {name: str(value) for name, value in params.items()} | {"base64": "false"}
    without = {name: value for name, value in text.items() if name != "image"}
    answers = [
        client.post(EDIT, json=params | {"image": b64encode(picture()).decode()}),
        client.post(EDIT, json=params | {"image": pictures.url()}),
        client.post(EDIT, files={name: (None, value) for name, value in text.items()}),
        client.post(EDIT, data=without, files={"image": ("photo.png", picture(), "image/png")}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        pixels = [Image.open(BytesIO(data)).tobytes() for data in (answer.content, wanted.content)]
        assert pixels[0] == pixels[1]


def test_a_failed_job_is_422(client: httpx.Client, params, pictures: Gallery) -> None:
    """A picture that isn't there fails the job; nothing is charged for it."""
    before = client.get("/v1/get-user-credits").json()
    answer = client.post(EDIT, json=params | {"image": pictures.url("missing")})
    assert answer.status_code == 422
    body = answer.json()
    assert body.pop("error")
    assert body == {
        "code": "image_unreachable",
        "field": "image",
        "request_id": answer.headers["x-request-id"],
    }
    assert client.get("/v1/get-user-credits").json() == before


def test_the_result_is_found_under_the_request_id(client: httpx.Client, params) -> None:
    """v1 is v2 plus a wait: the same result stands under the old and the new address."""
    answer = client.post(EDIT, json=params)
    request_id = answer.headers["x-request-id"]
    old, new = client.get(f"/v1/requests/{request_id}"), client.get(f"/v2/requests/{request_id}")
    assert old.json() == new.json()
    assert new.json()["status"] == "COMPLETED"
    assert httpx.get(new.json()["output"]).content == answer.content


def test_a_client_that_hangs_up_finds_its_result(
    node: Node, client: httpx.Client, secret: str, params, pictures: Gallery
) -> None:
    """The job goes on without its client, who gets it, paid once, by asking again under the same idempotency key."""
    body = json.dumps(params | {"image": pictures.url("held")}).encode()
    hang_up(node, secret, EDIT, body, pictures, **{"Idempotency-Key": "gone"})
    pictures.open_gate.set()

    answer = client.post(EDIT, content=body, headers={"Idempotency-Key": "gone", "Content-Type": "application/json"})
    assert answer.status_code == 200
    again = client.post(EDIT, content=body, headers={"Idempotency-Key": "gone", "Content-Type": "application/json"})
    assert again.content == answer.content
    assert again.headers["x-request-id"] == answer.headers["x-request-id"]
    assert again.headers["x-remaining-credits"] == answer.headers["x-remaining-credits"]


def test_a_wait_that_is_over_is_504(queue: httpx.Client, params) -> None:
    """The job goes on; the answer says where it will be found."""
    answer = queue.post(EDIT, json=params)
    assert answer.status_code == 504
    body = answer.json()
    assert body["code"] == "still_running"
    assert body["request_id"] == answer.headers["x-request-id"]
    found = queue.get(f"/v2/requests/{body['request_id']}")
    assert found.json()["status"] == "QUEUED"
    assert str(found.url) in body["error"]
