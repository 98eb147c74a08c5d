"""Uploads, on a real folder, with a clock that the test sets."""

import asyncio
import base64
import errno
import io

import pytest
from PIL import Image

from darkroom.blobs.folder import Folder
from darkroom.errors import InvalidField, StorageFull, UnknownField, UploadsFull
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.settings import Settings
from darkroom.uploads import MAX_FILES, Uploads

NOW = 1_000_000.5


def data_url(kind="PNG", size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, format=kind)
    return f"data:image/x;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture
def key(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db", lease_s=30, retention_s=60)
    yield ledger.create_key(name="k", digest="d", granted_micro=0)
    ledger.close()


@pytest.fixture
def blobs(tmp_path):
    return Folder(tmp_path / "blobs")


def counter(tmp_path, blobs, **settings):
    settings = Settings(data=tmp_path, **{"min_free_bytes": 0, "upload_retention_s": 60, **settings})
    return Uploads(blobs=blobs, settings=settings, clock=lambda: NOW)


def test_uploads_are_kept_for_their_time(tmp_path, blobs, key):
    """Each picture is kept as it came, under a name that can't be guessed and that ends in what the file really is."""
    uploads = asyncio.run(
        counter(tmp_path, blobs).take({"data_urls": [data_url("PNG"), data_url("JPEG"), data_url("PNG")]}, key)
    )
    assert [upload.file.partition(".")[2] for upload in uploads] == ["png", "jpeg", "png"]
    assert len({upload.file for upload in uploads}) == 3
    assert {upload.expires_at for upload in uploads} == {1_000_060}
    assert blobs.get(uploads[1].blob) == base64.b64decode(data_url("JPEG").partition(",")[2])


@pytest.mark.parametrize(
    ("urls", "field"),
    [
        (None, "data_urls"),
        ("x", "data_urls"),
        ([], "data_urls"),
        (["x"] * (MAX_FILES + 1), "data_urls"),
        ([7], "data_urls[0]"),
        ([data_url(), "data:image/png;base64,AAAA"], "data_urls[1]"),
        (["https://example.com/a.png"], "data_urls[0]"),
        ([data_url(size=(200, 100))], "data_urls[0]"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_picture_is_refused_by_its_place(tmp_path, blobs, key, urls, field):
    """The first one at fault is named, and none of them is kept."""
    with pytest.raises(InvalidField) as refused:
        asyncio.run(counter(tmp_path, blobs, max_picture_px=10_000).take({"data_urls": urls}, key))
    assert refused.value.field == field
    assert list(blobs.names()) == []


def test_an_unknown_parameter_is_named(tmp_path, blobs, key):
    """As it is in an edit."""
    with pytest.raises(UnknownField, match="data_urls") as refused:
        asyncio.run(counter(tmp_path, blobs).take({"data_url": [data_url()]}, key))
    assert refused.value.field == "data_url"


def test_a_key_has_its_share_of_the_disk(tmp_path, blobs, key):
    """What is kept for one key at once is bounded, and what would go beyond is refused whole."""
    size = len(base64.b64decode(data_url().partition(",")[2]))
    uploads = counter(tmp_path, blobs, upload_max_bytes=2 * size)
    asyncio.run(uploads.take({"data_urls": [data_url()]}, key))
    with pytest.raises(UploadsFull, match="this key's uploads"):
        asyncio.run(uploads.take({"data_urls": [data_url()] * 2}, key))
    asyncio.run(uploads.take({"data_urls": [data_url()]}, key))
    assert len(list(blobs.names())) == 2


def test_uploads_at_once_share_it(tmp_path, blobs, key):
    """Of many that come together, no more are kept than there is room for."""
    size = len(base64.b64decode(data_url().partition(",")[2]))
    uploads = counter(tmp_path, blobs, upload_max_bytes=size)

    async def send():
        sending = [uploads.take({"data_urls": [data_url()]}, key) for _ in range(6)]
        return await asyncio.gather(*sending, return_exceptions=True)

    answers = asyncio.run(send())
    assert sum(isinstance(answer, list) for answer in answers) == 1
    assert len(list(blobs.names())) == 1


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, OSError)])
def test_a_disk_that_fails_halfway_keeps_nothing(tmp_path, key, code, error):
    """Where one picture can't be written, those written before it are not left behind."""

    class Failing(Folder):
        def put(self, name, data):
            super().put(name, data)
            if len(list(self.names())) == 3:
                raise OSError(code, "x")

    blobs = Failing(tmp_path / "blobs")
    with pytest.raises(error):
        asyncio.run(counter(tmp_path, blobs).take({"data_urls": [data_url()] * 4}, key))
    assert list(blobs.names()) == []


def test_no_room_no_uploads(tmp_path, blobs, key):
    """A full disk refuses them as it refuses jobs."""
    with pytest.raises(StorageFull):
        asyncio.run(counter(tmp_path, blobs, min_free_bytes=2**60).take({"data_urls": [data_url()]}, key))
