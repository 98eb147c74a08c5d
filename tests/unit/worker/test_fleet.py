"""A worker for each device."""

import asyncio

import pytest

from darkroom.settings import Settings
from darkroom.worker import fleet as module
from darkroom.worker.fleet import Fleet
from darkroom.worker.messages import Ready
from darkroom.worker.supervisor import Health, Readiness


class Worker:
    """Stands for a supervisor: ready at once, there until drained; knows what it was told."""

    all: list["Worker"]

    def __init__(self, *, settings, ledger, on_change, on_ready):
        self.device = settings.device
        self.health = Health(state=Readiness.STARTING)
        self.told = []
        self._on_ready = on_ready
        self._drained = asyncio.Event()
        self.all.append(self)

    async def run(self):
        self.health = Health(state=Readiness.READY)
        self._on_ready(Ready(checkpoint="c", device=self.device, dtype="bfloat16", gpus=self.gpus))
        await self._drained.wait()

    def wake(self):
        self.told.append("wake")

    def holds(self, job_id):
        return job_id == f"of {self.device}"

    def drain(self):
        self._drained.set()


@pytest.fixture
def a_fleet(monkeypatch, tmp_path):
    def make(device, gpus):
        Worker.all, Worker.gpus = [], gpus
        monkeypatch.setattr(module, "Supervisor", Worker)
        return Fleet(settings=Settings(data=tmp_path, device=device), ledger=None, on_change=lambda _: None)

    return make


async def run_and(fleet, then):
    running = asyncio.create_task(fleet.run())
    for _ in range(10):
        await asyncio.sleep(0)
    then()
    fleet.drain()
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    ("device", "gpus", "devices"),
    [
        ("auto", 3, ["auto", "cuda:1", "cuda:2"]),
        ("auto", 1, ["auto"]),
        ("auto", 0, ["auto"]),
        ("cuda:1", 3, ["cuda:1"]),
        ("cpu", 3, ["cpu"]),
    ],
)
def test_auto_takes_every_gpu_and_a_named_device_stands_alone(a_fleet, device, gpus, devices):
    """Each worker has a device of its own, however often they say how many there are."""

    async def scenario():
        await run_and(a_fleet(device, gpus), lambda: None)

    asyncio.run(scenario())
    assert [worker.device for worker in Worker.all] == devices


def test_all_are_woken_and_any_may_hold_a_job(a_fleet):
    async def scenario():
        fleet = a_fleet("auto", 2)
        assert fleet.health.state == Readiness.STARTING

        def then():
            fleet.wake()
            assert fleet.holds("of cuda:1")
            assert not fleet.holds("of nobody")
            assert fleet.health.state == Readiness.READY

        await run_and(fleet, then)

    asyncio.run(scenario())
    assert [worker.told for worker in Worker.all] == [["wake"], ["wake"]]
