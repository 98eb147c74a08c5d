"""The heart: keeps the leases of all jobs in the worker's hands, in one thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from darkroom.job import Lease
from darkroom.ledger.contract import Ledger

log = structlog.get_logger()


class Heart:
    def __init__(self, *, worker: str, ledger: Ledger, beat_s: float) -> None:
        self._worker = worker
        self._ledger = ledger
        self._beat_s = beat_s
        self._held: set[Lease] = set()

    def hold(self, lease: Lease) -> None:
        self._held.add(lease)

    def let_go(self, lease: Lease) -> None:
        self._held.discard(lease)

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is held, and not lost as far as is known."""
        return lease in self._held

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep what is held for as long as the body runs."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._beat_s):
                try:
                    self._beat()
                except Exception:
                    # The next beat may succeed; until then the leases have time left, and after that others reap them.
                    log.exception("heartbeat failed")

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self) -> None:
        leases = self._held.copy()
        if not leases:
            return
        lost = self._ledger.heartbeat(self._worker, leases)
        for lease in leases:
            if lease.job_id in lost:
                self.let_go(lease)
