"""The official SDK, as it is on PyPI, pointed at this server."""

from collections.abc import Iterator

import httpx
import pytest
from segmind import InferenceFailed, InferenceTimeout, SegmindClient
from segmind.exceptions import SegmindError

from serving import Gallery, Node

SLUG = "qwen-image-edit-plus"


@pytest.fixture(scope="module")
def sdk(node: Node, secret: str) -> Iterator[SegmindClient]:
    client = SegmindClient(api_key=secret, base_url=f"{node.url}/v1", timeout=60)
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
