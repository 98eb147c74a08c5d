"""The worker process: `python -m darkroom.worker.process`, started by the supervisor.

Why a process of its own? Torch stays out of the process that answers clients. A crash, a hang or a full memory takes
one attempt at one job along and nothing else.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from io import FileIO

import structlog

from darkroom.checkpoint.locate import locate
from darkroom.engine.device import count_gpus, set_threads
from darkroom.engine.engine import Engine
from darkroom.errors import BadSetting, OutOfMemory, SetupError
from darkroom.fetch.guard import Fetcher
from darkroom.lora.adapters import Adapters
from darkroom.lora.base import Base
from darkroom.observability import logging
from darkroom.settings import Settings
from darkroom.stores import open_blobs, open_ledger, open_loras
from darkroom.worker.loop import Worker
from darkroom.worker.messages import Configure, Message, Ready, SetupFailed, from_line, to_line
from darkroom.worker.orders import Orders

ORPHAN_S = 30
"""How long a worker whose service has gone may hang on to a step before it ends itself."""


def main() -> int:
    """0 drained · 3 the engine can't be loaded · 4 out of memory, to be replaced · 5 orphaned and stuck."""
    # A service manager may signal all of its processes at once; this one ends when the service has drained it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inbox, outbox = _take_stdio()
    sending = threading.Lock()

    def tell(message: Message) -> None:
        # A service that has gone is noticed where its messages end; it must not look like a fault of the job.
        with sending, suppress(BrokenPipeError):
            outbox.write(to_line(message))

    configure = from_line(inbox.readline())
    if not isinstance(configure, Configure):
        raise TypeError(f"a worker is told its settings first, not {configure}")
    settings = Settings(**configure.settings)
    logging.configure(settings.log_format, level=settings.log_level)
    structlog.contextvars.bind_contextvars(worker=configure.worker)
    orders = Orders()
    threading.Thread(target=_obey, args=(orders, inbox), name="orders", daemon=True).start()
    try:
        engine = _load(settings)
        worker = Worker(
            name=configure.worker,
            ledger=open_ledger(settings),
            blobs=open_blobs(settings),
            fetcher=Fetcher(allow=settings.fetch_allow, max_bytes=settings.max_picture_bytes),
            adapters=Adapters(open_loras(settings), Base(settings.checkpoint)),
            engine=engine,
            orders=orders,
            tell=tell,
            settings=settings,
        )
    except SetupError as error:
        tell(SetupFailed(reason=error.message))
        return 3
    tell(Ready(checkpoint=str(settings.checkpoint), device=engine.device, dtype=engine.dtype, gpus=count_gpus()))
    try:
        worker.run()
    except OutOfMemory:
        return 4
    return 0


def _obey(orders: Orders, inbox: FileIO) -> None:
    orders.listen(inbox)
    time.sleep(ORPHAN_S)
    os._exit(5)


def _load(settings: Settings) -> Engine:
    if settings.checkpoint is None:
        raise BadSetting(
            "no checkpoint was chosen for this worker: `darkroom serve` chooses one, DARKROOM_CHECKPOINT names one"
        )
    set_threads()
    engine = Engine.load(
        locate(settings.checkpoint),
        device=settings.device,
        dtype=settings.dtype,
        tier=settings.quality_tier,
        compile=settings.compile,
        memo_bytes=settings.encode_cache_mb * 2**20,
        memory_gb=settings.device_memory_gb,
    )
    engine.warm()
    return engine


def _take_stdio() -> tuple[FileIO, FileIO]:
    """The service's pipes. Whatever else prints to standard output is sent to standard error from now on.

    Unbuffered: a thread that waits in a buffered read would hold a lock which the interpreter wants when it ends.
    """
    inbox = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return inbox, outbox


if __name__ == "__main__":
    sys.exit(main())
