"""Picture files of every family, through the whole service: what a file says is one picture, however it says it.

The engine gives the same result for the same pixels, so results are compared.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

FIELD = "image"
SIZE = (96, 64)


def scene() -> Image.Image:
    """Few grey levels, no symmetry: palette, grey and colour files can all hold it exactly."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return Image.fromarray((17 * ((x // 16 + 2 * (y // 16)) % 16)).astype(np.uint8)).convert("RGB")


def file(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def turned(kind: str, **how: Any) -> bytes:
    """Lying on its side, with a word that says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return file(scene().transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **how)


def see_through() -> bytes:
    """The picture where it is opaque; where it would be white anyway, black that can't be seen."""
    levels = np.asarray(scene())
    white = levels[..., :1] == 255
    hidden = np.where(white, 0, levels)
    alpha = np.where(white, 0, 255)
    return file(Image.fromarray(np.concatenate([hidden, alpha], axis=-1).astype(np.uint8)), "PNG")


def sixteen_bits() -> bytes:
    return file(Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257), "PNG")


def with_srgb_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return file(scene(), "PNG", icc_profile=profile)


def animated(kind: str, **how: Any) -> bytes:
    return file(scene(), kind, save_all=True, append_images=[Image.new("RGB", SIZE, "red")], **how)


EXACT: Mapping[str, Callable[[], bytes]] = {
    "PNG": lambda: file(scene(), "PNG"),
    "BMP": lambda: file(scene(), "BMP"),
    "TIFF": lambda: file(scene(), "TIFF"),
    "WebP": lambda: file(scene(), "WEBP", lossless=True),
    "GIF": lambda: file(scene().convert("L"), "GIF"),
    "palette": lambda: file(scene().quantize(16, dither=Image.Dither.NONE), "PNG"),
    "grey": lambda: file(scene().convert("L"), "PNG"),
    "16 bits": sixteen_bits,
    "alpha": see_through,
    "ICC": with_srgb_profile,
    "turned PNG": lambda: turned("PNG"),
    "turned WebP": lambda: turned("WEBP", lossless=True),
}
"""Files of the very same pixels."""

NEAR: Mapping[str, Callable[[], bytes]] = {
    "JPEG": lambda: file(scene(), "JPEG", quality=95),
    "turned JPEG": lambda: turned("JPEG", quality=95),
    "AVIF": lambda: file(scene(), "AVIF", quality=95),
    "HEIC": lambda: heic(scene()),
    "CMYK": lambda: file(scene().convert("CMYK"), "JPEG", quality=95),
    "animated GIF": lambda: animated("GIF"),
    "animated WebP": lambda: animated("WEBP", lossless=True),
    "animated PNG": lambda: animated("PNG"),
    "pages": lambda: animated("TIFF"),
}
"""Files of about these pixels."""

SAID = {
    "CMYK": "image: CMYK without a usable profile; its colours are approximate",
    "animated GIF": "image: only the first of several frames is used",
    "animated WebP": "image: only the first of several frames is used",
    "animated PNG": "image: only the first of several frames is used",
    "pages": "image: only the first of several frames is used",
}


def heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return file(image, "HEIF", quality=95)


def edited(client: httpx.Client, params: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """The result of an edit of this file, and its pixels."""
    boundless = {name: str(value) for name, value in params.items() if name != FIELD} | {"image_format": "png"}
    answer = client.post("/v1/qwen-image-edit-plus", data=boundless, files={FIELD: data})
    assert answer.status_code == 200, answer.text
    result = client.get(f"/v2/requests/{answer.headers['x-request-id']}").json()
    return result, Image.open(BytesIO(answer.content)).tobytes()


@pytest.fixture(scope="module")
def wanted(client: httpx.Client) -> bytes:
    """What the engine makes of the scene."""
    params = {"prompt": "turn it blue", "seed": 7, "num_inference_steps": 1, "guidance_scale": 1}
    return edited(client, params, file(scene(), "PNG"))[1]


@pytest.mark.parametrize("family", EXACT)
def test_the_same_pixels_give_the_same_result(client: httpx.Client, params, wanted: bytes, family: str) -> None:
    """Format, depth, palette, transparency, profile and orientation are resolved before the engine sees the picture."""
    result, pixels = edited(client, params, EXACT[family]())
    assert pixels == wanted
    assert "warnings" not in result


@pytest.mark.parametrize("family", NEAR)
def test_every_other_family_is_read(client: httpx.Client, params, wanted: bytes, family: str) -> None:
    """Upright and at its own ratio, with a word where something of the file was left aside."""
    result, pixels = edited(client, params, NEAR[family]())
    assert len(pixels) == len(wanted)
    assert result["images"][0]["width"] > result["images"][0]["height"]
    assert result.get("warnings", []) == ([SAID[family]] if family in SAID else [])


def test_other_pixels_give_another_result(client: httpx.Client, params, wanted: bytes) -> None:
    """Else the comparisons here would say nothing."""
    assert edited(client, params, file(scene().transpose(Image.Transpose.ROTATE_180), "PNG"))[1] != wanted


UNUSABLE: Mapping[str, Callable[[], bytes]] = {
    "cut short": lambda: file(scene(), "PNG")[:-60],
    "bomb": lambda: file(Image.new("1", (9000, 9000)), "PNG"),
    "web page": lambda: b"<!doctype html><title>no picture</title>",
    "sliver": lambda: file(Image.new("L", (400, 3)), "PNG"),
    "nothing known": lambda: bytes(range(256)),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_usable_picture_is_refused(queue: httpx.Client, kind: str) -> None:
    """On the submit, by the field's name, with what to do; whichever way it came."""
    data = UNUSABLE[kind]()
    sent = queue.post("/v2/qwen-image-edit-plus", data={"prompt": "x"}, files={"image": data})
    inline = queue.post("/v2/qwen-image-edit-plus", json={"prompt": "x", "image": b64encode(data).decode()})
    for answer in (sent, inline):
        assert answer.status_code == 400, answer.text
        assert (answer.json()["code"], answer.json()["field"]) == ("invalid_field", "image")
        assert answer.json()["error"].startswith("image: ")
