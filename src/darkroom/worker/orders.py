"""What the service has told its worker, as it comes in while the worker computes."""

import threading
import time
from collections.abc import Iterable

from darkroom.worker.messages import Drain, Wake, from_line


class Orders:
    """Filled by a thread that reads the service's messages; asked by the worker between jobs and between steps."""

    def __init__(self) -> None:
        self._stir = threading.Event()
        self._drain_at: float | None = None

    def listen(self, lines: Iterable[bytes]) -> None:
        """Take in messages until `lines` ends, which means that the service is gone: then give back at once."""
        try:
            for line in lines:
                match from_line(line):
                    case Wake():
                        self._stir.set()
                    case Drain(grace_s=grace_s):
                        self._drain(grace_s)
                    case other:
                        raise ValueError(f"not for a worker: {other}")
        finally:
            self._drain(0)

    def wait(self, timeout_s: float) -> None:
        """Until there may be something to claim, or it is time to go."""
        self._stir.wait(timeout_s)
        self._stir.clear()

    def stir(self) -> None:
        """End the wait of whoever waits."""
        self._stir.set()

    @property
    def draining(self) -> bool:
        """Whether to take no more jobs."""
        return self._drain_at is not None

    @property
    def overdue(self) -> bool:
        """Whether the running jobs are to be given back, too."""
        return self._drain_at is not None and time.monotonic() >= self._drain_at

    def _drain(self, grace_s: float) -> None:
        drain_at = time.monotonic() + grace_s
        self._drain_at = drain_at if self._drain_at is None else min(self._drain_at, drain_at)
        self._stir.set()
