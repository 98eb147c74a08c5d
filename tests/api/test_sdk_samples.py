"""The product pages' own samples, run by the real SDK. Only the base URL, the key and the pictures' host are ours."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import segmind
from segmind import SegmindClient
from segmind.exceptions import SegmindError

from serving import Gallery, Node

SAMPLES = {path.stem: path.read_text() for path in sorted(Path(__file__).with_name("samples").glob("*.txt"))}
PLAIN = "qwen-image-edit-plus"
SECOND = "# --- Or submit + poll manually"
"""Where a sample begins anew."""


@pytest.fixture
def pointed(node: Node, secret: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The SDK with our server for its default; the names a sample defines."""
    monkeypatch.setattr(SegmindClient.__init__, "__defaults__", (None, f"{node.url}/v1", 60.0))
    monkeypatch.setattr(segmind, "_default_client", None)
    monkeypatch.setenv("SEGMIND_API_KEY", secret)
    names: dict[str, Any] = {}
    yield names
    for client in (segmind._default_client, names.get("client")):
        if client is not None:
            client._client.close()


def halves(slug: str, pictures: Gallery) -> tuple[str, str]:
    """The two programs that a sample is."""
    text, count = re.subn(r"https://segmind-resources\.s3\.amazonaws\.com/[^\"]+/", pictures.url(""), SAMPLES[slug])
    assert count >= 2
    first, second = text.split(SECOND)
    return first, SECOND + second


def test_there_is_a_sample_of_every_page() -> None:
    """The five pages."""
    endings = ("", "-multi-lora", "-multiple-angle", "-product-photography", "-texture-apply")
    assert {f"{PLAIN}{ending}" for ending in endings} == SAMPLES.keys()


def test_the_plain_models_sample(pointed: dict[str, Any], pictures: Gallery) -> None:
    """It prints what the page says it prints, both ways."""
    first, second = halves(PLAIN, pictures)
    printed: list[Any] = []
    pointed["print"] = lambda *values: printed.extend(values)
    exec(first, pointed)
    status, output, seconds = printed
    assert status == "COMPLETED"
    assert httpx.get(output).headers["content-type"] == "image/webp"
    assert seconds > 0
    printed.clear()
    exec(second, pointed)
    assert printed == [pointed["job"].request_id]
    assert pointed["result"]["status"] == "COMPLETED"
    assert pointed["result"]["seed"] == "760941192"


@pytest.mark.parametrize("slug", [slug for slug in SAMPLES if slug != PLAIN])
def test_a_sample_that_needs_an_adapter(pointed: dict[str, Any], pictures: Gallery, slug: str) -> None:
    """All that is wrong with it is the adapter, which this server lacks: 503 that names it."""
    for half in halves(slug, pictures):
        with pytest.raises(SegmindError) as refused:
            exec(half, pointed)
        assert refused.value.status == 503
        assert "lora" in refused.value.detail
