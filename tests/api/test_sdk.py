"""The official SDK, as it is on PyPI, pointed at this server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from segmind import InferenceFailed, InferenceTimeout, SegmindClient
from segmind.exceptions import SegmindError

from serving import Gallery, Mailbox, Node, picture

SLUG = "qwen-image-edit-plus"


@pytest.fixture(scope="module")
def sdk(node: Node, secret: str) -> Iterator[SegmindClient]:
    client = SegmindClient(api_key=secret, base_url=f"{node.url}/v1", timeout=60)
    yield client
    client._client.close()


@pytest.fixture
def rehosted(node: Node, secret: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SegmindClient]:
    """The SDK has the hosts of its other calls written into it; a caller can turn them to ours on their way out."""

    def turn(request: httpx.Request) -> None:
        if request.url.host.endswith("segmind.com"):
            ours = httpx.URL(node.url)
            request.url = request.url.copy_with(scheme=ours.scheme, host=ours.host, port=ours.port)
            request.headers["host"] = request.url.netloc.decode()

    client = SegmindClient(api_key=secret, base_url=f"{node.url}/v1", timeout=60)
    client._client.event_hooks["request"].append(turn)
    yield client
    client._client.close()


def test_run(sdk: SegmindClient, params, pictures: Gallery) -> None:
    """`run` submits, polls and returns the result, as the product page's sample prints it."""
    result = sdk.run(SLUG, **params | {"image": pictures.url(), "image_3": None})
    assert result["status"] == "COMPLETED"
    assert result["metrics"]["inference_time"] > 0
    assert httpx.get(result["output"]).headers["content-type"] == "image/webp"


def test_submit_and_wait(sdk: SegmindClient, params) -> None:
    """The handle of `submit_async` knows the request, and waits for the same result that `result` gives."""
    job = sdk.submit_async(SLUG, **params)
    assert job.request_id
    result = job.wait(timeout=60, interval=0.05)
    assert result["request_id"] == job.request_id
    assert job.result() == result
    assert job.status()["status"] == "COMPLETED"


def test_run_sync(sdk: SegmindClient, params) -> None:
    """One blocking call gives the picture's bytes."""
    answer = sdk.run_sync(SLUG, **params | {"image_format": "jpeg"})
    assert answer.content.startswith(b"\xff\xd8\xff")


def test_multi_lora_without_a_lora(sdk: SegmindClient, params) -> None:
    """The multi-LoRA model runs with `lora: none`."""
    params["image_1"] = params.pop("image")
    result = sdk.submit_async(f"{SLUG}-multi-lora", **params, lora="none").wait(timeout=60, interval=0.05)
    assert result["status"] == "COMPLETED"


def test_a_failed_request(sdk: SegmindClient, params, pictures: Gallery) -> None:
    """FAILED raises InferenceFailed with the reason, also in the one-call form."""
    params |= {"image": pictures.url("missing")}
    with pytest.raises(InferenceFailed) as failed:
        sdk.submit_async(SLUG, **params).wait(timeout=60, interval=0.05)
    assert "image" in failed.value.detail
    assert failed.value.status_body["code"] == "image_unreachable"
    with pytest.raises(SegmindError) as refused:
        sdk.run_sync(SLUG, **params)
    assert refused.value.status == 422


def test_a_wait_that_is_over(idle: Node, params) -> None:
    """InferenceTimeout names the request, which goes on."""
    client = SegmindClient(api_key=idle.new_key("impatient"), base_url=f"{idle.url}/v1")
    job = client.submit_async(SLUG, **params)
    with pytest.raises(InferenceTimeout) as timeout:
        job.wait(timeout=0, interval=0)
    assert timeout.value.request_id == job.request_id
    assert job.status()["status"] == "QUEUED"
    client._client.close()


def test_a_refused_request(sdk: SegmindClient, params) -> None:
    """The SDK shows our message."""
    with pytest.raises(SegmindError) as refused:
        sdk.run(SLUG, **params | {"seed": "x"})
    assert refused.value.status == 400
    assert "seed" in refused.value.detail


def test_an_upload(rehosted: SegmindClient, params, tmp_path: Path) -> None:
    """Files go up, and their links are pictures' addresses."""
    path = tmp_path / "photo.png"
    path.write_bytes(picture())
    answer = rehosted.files.upload([path, path])
    assert answer["message"] == "Files uploaded successfully"
    first, second = answer["file_urls"]
    assert first.startswith(rehosted.base_url.removesuffix("/v1") + "/uploads/")
    result = rehosted.submit_async(SLUG, **params | {"image": first, "image_2": second}).wait(timeout=60, interval=0.05)
    assert result["status"] == "COMPLETED"


def test_an_upload_of_no_picture(rehosted: SegmindClient, tmp_path: Path) -> None:
    """The SDK takes films and sounds; this server says that it doesn't."""
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(SegmindError) as refused:
        rehosted.files.upload(path)
    assert refused.value.status == 400
    assert "data_urls[0]" in refused.value.detail


def test_the_generations(rehosted: SegmindClient, params) -> None:
    """What has given a picture, by the loop of the SDK's own example."""
    today = str(datetime.now(UTC).date())
    request_id = rehosted.run(SLUG, **params)["request_id"]
    listed = rehosted.generations.list(page=1, model_name=SLUG, start_date=today)
    for row in listed["data"]:
        assert (row["model_name"], row.get("credits_deduction"), row["status"]) == (SLUG, 0.04, "COMPLETED")
    assert listed["data"][0]["request_id"] == request_id
    assert listed["data"][0]["prompt"] == params["prompt"]
    assert listed["data"][0]["parameters"]["seed"] == params["seed"]
    assert rehosted.generations.recent(SLUG)["data"][0] == rehosted.generations.list()["data"][0] == listed["data"][0]
    assert httpx.get(listed["data"][0]["generation_url"]).headers["content-type"] == "image/webp"


def test_the_history(rehosted: SegmindClient, params, pictures: Gallery) -> None:
    """Failures too, and each by its id."""
    today = str(datetime.now(UTC).date())
    with pytest.raises(InferenceFailed):
        rehosted.run(SLUG, **params | {"image": pictures.url("missing")})
    history = rehosted.generations.history(
        per_page=1,
        from_date=today,
        model_name="edit-plus",
        status="FAILED",
        user_id=rehosted.accounts.current()["id"],
        sort_by="model_created",
        sort_order="desc",
    )
    (row,) = history["data"]
    assert (row["model_status"], row["credits_deduction"], row["code"]) == ("FAILED", 0, "image_unreachable")
    assert rehosted.generations.get(row["request_id"]) == row


def test_a_history_that_there_is_none_of(rehosted: SegmindClient) -> None:
    """The SDK shows why."""
    with pytest.raises(SegmindError) as refused:
        rehosted.generations.history(per_page=1000)
    assert (refused.value.status, refused.value.detail[:8]) == (400, "per_page")
    with pytest.raises(SegmindError) as unknown:
        rehosted.generations.get("no such/request")
    assert unknown.value.status == 404


def test_the_models(rehosted: SegmindClient, node: Node) -> None:
    """All of the catalogue."""
    (models,) = rehosted.models.list().values()
    assert [model["slug"] for model in models] == list(node.service.catalogue)


def test_the_account(rehosted: SegmindClient) -> None:
    """Who the key is, and what it can still spend, by the SDK's own request."""
    assert rehosted.accounts.current()["name"] == "test"
    assert rehosted._request("GET", f"{rehosted.base_url}/get-user-credits").json().keys() == {
        "credits",
        "free-credits",
    }


def test_a_key_that_is_no_good(node: Node) -> None:
    """The SDK shows why."""
    client = SegmindClient(api_key="dk_wrong", base_url=f"{node.url}/v1")
    with pytest.raises(SegmindError) as refused:
        client.run(SLUG, prompt="x")
    assert refused.value.status == 401
    assert refused.value.detail.startswith("Unauthorized.")
    client._client.close()


def test_webhooks(rehosted: SegmindClient, receiver: Mailbox, params) -> None:
    """The SDK's own calls add one, change it, see what it was sent, and end it."""
    added = rehosted.webhooks.add(receiver.url("/sdk/first"), ["request.failed"])["webhook"]
    webhook = added["webhook_id"]
    changed = rehosted.webhooks.update(webhook, receiver.url("/sdk"), ["request.completed"])["webhook"]
    assert changed["webhook_url"] == receiver.url("/sdk")
    assert changed in rehosted.webhooks.get()["webhooks"]
    result = rehosted.run(SLUG, **params)
    (letter,) = receiver.letters("/sdk", 1)
    (logged,) = rehosted.webhooks.logs(webhook)["logs"]
    assert logged["message_id"] == letter.headers["webhook-id"]
    assert logged["request_id"] == result["request_id"]
    assert not rehosted.webhooks.delete(webhook)["webhook"]["is_active"]
