"""Pictures within a request."""

import asyncio
import base64
import io
from threading import Event

import pytest
from PIL import Image

from darkroom import inline
from darkroom.errors import InvalidField
from darkroom.inline import read_inline
from darkroom.picture import Limits

LIMITS = Limits(max_bytes=10_000, max_px=10_000)


def a_png() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((9, 9), 90).save(file, format="PNG")
    return file.getvalue()


def read(value: str | bytes) -> bytes:
    return asyncio.run(read_inline(value, field="image", limits=LIMITS)).data


@pytest.mark.parametrize("excess", range(3))
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_taken_padded_or_not_in_either_alphabet(encode, prefix, excess):
    """Whatever the file's length: browsers read all of these."""
    png = a_png() + bytes(excess)
    padded = encode(png).decode()
    assert read(prefix + padded) == read(prefix + padded.rstrip("=")) == png


def test_what_is_no_base64_in_a_data_url_is_told_as_that():
    """It was a data URL, and the message does not say otherwise."""
    with pytest.raises(InvalidField, match=r"image: what follows data:image/png;base64 is not base64"):
        read("data:image/png;base64,%89PNG")


def test_pictures_that_wait_to_be_read_hold_up_nothing_else(monkeypatch):
    """However many are being sent, what needs a thread for a moment gets one."""
    may_go_on = Event()
    monkeypatch.setattr(inline, "check_picture", lambda *_, **__: may_go_on.wait() and "image/png")

    async def crowd() -> list[bytes]:
        reading = [asyncio.create_task(read_inline(b"", field="image", limits=LIMITS)) for _ in range(50)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await asyncio.to_thread(may_go_on.set)
        return [each.data for each in await asyncio.gather(*reading)]

    assert asyncio.run(crowd()) == [b""] * 50
