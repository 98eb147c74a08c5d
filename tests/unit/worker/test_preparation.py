"""A job's pictures are the same bytes for whoever prepares it."""

import threading

import pytest

from darkroom.blobs.names import input_name
from darkroom.edit import PictureRef
from darkroom.picture import Limits
from darkroom.worker.preparation import Preparer
from workbench import PATIENCE_S, png

URL = "http://pictures.example/a.png"


class Changing:
    """A host that sends another picture each time; the first two to ask are answered together."""

    def __init__(self):
        self._together = threading.Barrier(2)
        self.asked = 0

    async def fetch(self, url, *, field):
        self.asked += 1
        data = png((8 * self.asked, 6))
        self._together.wait(PATIENCE_S)
        return data


@pytest.fixture
def host():
    return Changing()


@pytest.fixture
def preparer(bench, host):
    return Preparer(
        blobs=bench.blobs,
        fetcher=host,
        adapters=None,
        engine=bench.engine,
        limits=Limits(max_bytes=10**6, max_px=10**6),
    )


def test_two_workers_that_fetch_at_once_use_the_same_picture(bench, host, preparer):
    """What was kept first is what both prepare, and what a later attempt is given."""
    job_id = bench.submit(pictures=(PictureRef(field="image", url=URL),))
    job = bench.ledger.job(job_id)
    prepared = []
    threads = [threading.Thread(target=lambda: prepared.append(preparer.prepare(job).prepared)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.asked == 2
    again = preparer.prepare(job).prepared
    assert host.asked == 2
    assert [picture.size for picture in prepared] == [again.size] * 2
    assert bench.blobs.get(input_name(job_id, "image")) == png(again.size)
