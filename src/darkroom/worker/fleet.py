"""The fleet: a supervised worker for each device that the settings name."""

import asyncio
from collections.abc import Callable

from darkroom.ledger.contract import Ledger
from darkroom.settings import Settings
from darkroom.worker.messages import Ready
from darkroom.worker.supervisor import Health, Readiness, Supervisor


class Fleet:
    """Supervisors taken together; `on_change` as theirs. The first worker, once it is ready, tells how many GPUs there
    are, for torch is asked in no other process; `device` names one of them, or auto all."""

    def __init__(self, *, settings: Settings, ledger: Ledger, on_change: Callable[[str], None]) -> None:
        self._settings = settings
        self._ledger = ledger
        self._on_change = on_change
        self._supervisors = [self._supervisor(settings.device)]
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def health(self) -> Health:
        """That of a worker that is READY, if any is; else the first one's."""
        healths = [supervisor.health for supervisor in self._supervisors]
        return next((health for health in healths if health.state == Readiness.READY), healths[0])

    async def run(self) -> None:
        """Keep the workers alive until `drain` has been called and they are gone."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._supervisors[0].run())

    def wake(self) -> None:
        for supervisor in self._supervisors:
            supervisor.wake()

    def holds(self, job_id: str) -> bool:
        return any(supervisor.holds(job_id) for supervisor in self._supervisors)

    def drain(self) -> None:
        for supervisor in self._supervisors:
            supervisor.drain()

    def kill(self) -> None:
        for supervisor in self._supervisors:
            supervisor.kill()

    def _supervisor(self, device: str) -> Supervisor:
        settings = self._settings.model_copy(update={"device": device})
        return Supervisor(settings=settings, ledger=self._ledger, on_change=self._on_change, on_ready=self._grow)

    def _grow(self, ready: Ready) -> None:
        if self._tasks is None or self._settings.device != "auto":
            return
        for index in range(len(self._supervisors), ready.gpus):
            supervisor = self._supervisor(f"cuda:{index}")
            self._supervisors.append(supervisor)
            self._tasks.create_task(supervisor.run())
