import json
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import ExifTags, Image

from darkroom.settings import Settings
from serving import PATIENCE_S, serving

EDIT = "/v1/qwen-image-edit-plus"


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_result_says_how_it_was_made(client: httpx.Client, params, image_format: str) -> None:
    """Seed, model and request id, where each format has room for them."""
    answer = client.post(EDIT, json=params | {"image_format": image_format})
    image = Image.open(BytesIO(answer.content))
    said = image.text if image_format == "png" else json.loads(image.getexif()[ExifTags.Base.ImageDescription])
    assert said == {"seed": "7", "slug": "qwen-image-edit-plus", "request_id": answer.headers["x-request-id"]}


def test_a_result_that_says_nothing(tiny_checkpoint: Path, tmp_path: Path, params) -> None:
    """With `result_metadata` off the file holds no word of it."""
    settings = Settings(
        data=tmp_path, checkpoint=str(tiny_checkpoint), device="cpu", result_metadata=False, v1_wait_s=PATIENCE_S
    )
    with serving(settings) as node, node.client(node.new_key("test")) as client:
        for image_format in ("png", "webp"):
            answer = client.post(EDIT, json=params | {"image_format": image_format})
            assert answer.status_code == 200
            image = Image.open(BytesIO(answer.content))
            assert not getattr(image, "text", {})
            assert ExifTags.Base.ImageDescription not in image.getexif()
            assert answer.headers["x-request-id"].encode() not in answer.content
