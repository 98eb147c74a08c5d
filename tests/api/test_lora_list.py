"""GET /v2/loras."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from darkroom.lora.shelf import Shelf
from darkroom.settings import Settings
from hosts import FileHost, digest_of, file_host, lora_file
from serving import Node, serving

FIRST, SECOND = lora_file(seed=1), lora_file(seed=2)


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as server:
        yield server


@pytest.fixture
def node(tmp_path: Path, host: FileHost) -> Iterator[Node]:
    with serving(Settings(data=tmp_path, checkpoint="/nowhere", fetch_allow=(host.address,))) as running:
        yield running


def test_what_goes_by_a_name(node: Node, host: FileHost, tmp_path: Path) -> None:
    """Presets with trigger, scale, digest and whether they are installed; the operator's own; nobody's requests'."""
    shelf = Shelf(node.service.loras)

    def nobody(done: int, size: int | None) -> None: ...

    with node.client(node.new_key("test")) as client:
        before = client.get("/v2/loras").json()["loras"]
        assert [one["name"] for one in before] == [*node.service.loras.presets]
        assert not any(one["installed"] or one["digest"] for one in before)
        path = tmp_path / "a.safetensors"
        path.write_bytes(FIRST)
        asyncio.run(shelf.add("next_scene", str(path), nobody, scale=None, trigger=None))
        asyncio.run(shelf.add("film", str(path), nobody, scale=0.5, trigger="film grain"))
        asyncio.run(shelf.fetch(host.put("private.safetensors", SECOND), nobody))
        answer = client.get("/v2/loras")
    named = {one.pop("name"): one for one in answer.json()["loras"]}
    common = {"installed": True, "digest": digest_of(FIRST)}
    assert named["next_scene"] == {"trigger": "Next Scene:", "scale": 0.75, **common}
    assert named["film"] == {"trigger": "film grain", "scale": 0.5, **common}
    assert not named["relight"]["installed"]
    assert "private" not in answer.text
    assert digest_of(SECOND) not in answer.text


def test_it_takes_a_key(node: Node) -> None:
    """What is installed here is no stranger's affair."""
    assert httpx.get(f"{node.url}/v2/loras").status_code == 401
