"""The bell: wakes whoever waits for a job, when the worker has moved it."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """For one event loop. A ring is a hint to look again: what has changed is in the ledger."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def ring(self, job_id: str) -> None:
        for heard in self._listeners.get(job_id, ()):
            heard.set()

    def ring_all(self) -> None:
        for job_id in self._listeners:
            self.ring(job_id)

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        heard = asyncio.Event()
        self._listeners[job_id].add(heard)
        try:
            yield heard
        finally:
            self._listeners[job_id].remove(heard)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
