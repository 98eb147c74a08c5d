import io

import pytest
from PIL import Image

from darkroom.magic import HEAD_BYTES, is_markup, is_picture


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_are_known_by_their_head(form: str) -> None:
    """What Pillow writes in each format is taken for a picture, from its first bytes alone."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, form)
    assert is_picture(file.getvalue()[:HEAD_BYTES])
    assert not is_markup(file.getvalue()[:HEAD_BYTES])


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heif(brand: bytes) -> None:
    """HEIC files are told by the brand in their first box."""
    assert is_picture(b"\x00\x00\x00\x18ftyp" + brand + b"\x00\x00\x00\x00")


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xd8", b"RIFF\x00\x00\x00\x00WAVE", b"\x00\x00\x00\x18ftypisom", b"%PDF-1.7", b"<html>"]
)
def test_others_are_not(head: bytes) -> None:
    """A sound, a film, a document, a page or a piece of a signature is no picture."""
    assert not is_picture(head)


@pytest.mark.parametrize("head", [b"<!doctype html>", b"\xef\xbb\xbf  \r\n<HTML>", b'{"error": "no"}', b"<svg "])
def test_markup(head: bytes) -> None:
    """Pages and JSON answers are told apart, so that the message can say so."""
    assert is_markup(head)
