from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.compose import build_service
from darkroom.keys import create_key
from darkroom.settings import Settings


@pytest.mark.parametrize(
    ("public_url", "base"),
    [
        (None, "http://asked.example:8080"),
        ("https://pictures.example", "https://pictures.example"),
        ("https://example.com/darkroom/", "https://example.com/darkroom"),
    ],
)
def test_addresses_are_the_public_ones(
    tmp_path: Path, params: dict[str, Any], public_url: str | None, base: str
) -> None:
    """Answers name the address that the operator has set, else the one the request came to."""
    service = build_service(Settings(data=tmp_path, public_url=public_url))
    secret, _ = create_key(service.ledger, name="test", credits=1)
    client = TestClient(create_app(service), base_url="http://asked.example:8080", headers={"x-api-key": secret})
    body = client.post("/v2/qwen-image-edit-plus", json=params).json()
    assert body["status_url"] == f"{base}/v2/requests/{body['request_id']}/status"
    assert body["response_url"] == f"{base}/v2/requests/{body['request_id']}"
    assert body["poll_url"] == f"{base}/v1/requests/{body['request_id']}"
    service.ledger.close()
