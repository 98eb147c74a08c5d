"""Signals its own process at a named point of a job's way; with this folder on PYTHONPATH every Python process has it.

The file that CRASH_PLAN names holds one line, "SIGNAL PROCESS CLASS.METHOD WHEN [STAGE]", e.g. "KILL worker
SqliteLedger.complete before" or "STOP worker SqliteLedger.progress before denoise". HANG for a SIGNAL stops only the
thread that gets there. The process removes the file first, so a plan is carried out once. The product knows nothing of
this.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from pathlib import Path

from darkroom.blobs.folder import Folder
from darkroom.ledger.sqlite import SqliteLedger

PLAN = Path(os.environ["CRASH_PLAN"])
PROCESS = "worker" if "darkroom.worker.process" in sys.orig_argv else "service"


def crash_if_planned(point, when, args):
    try:
        plan = PLAN.read_text().split()
    except FileNotFoundError:
        return
    stages = [str(getattr(arg, "stage", "")) for arg in args]
    if plan[1:4] == [PROCESS, point, when] and (not plan[4:] or plan[4] in stages):
        PLAN.unlink()
        if plan[0] == "HANG":
            threading.Event().wait()
        with at_rest(args[0]) if plan[0] == "STOP" else contextlib.nullcontext():
            # To this thread, so that it goes no further: the signal ends or stops the whole process all the same.
            signal.pthread_kill(threading.get_ident(), signal.Signals[f"SIG{plan[0]}"])


def at_rest(ledger):
    """With none of its threads in a transaction: a process that stands still in one would hold up all others."""
    return ledger._file._lock


def breakable(point, method):
    @functools.wraps(method)
    def wrapped(*args, **kwargs):
        crash_if_planned(point, "before", args)
        result = method(*args, **kwargs)
        crash_if_planned(point, "after", args)
        return result

    return wrapped


for owner, names in {
    SqliteLedger: ("accept", "claim", "progress", "complete", "fail", "retry", "release", "reap", "forget"),
    Folder: ("put", "delete"),
}.items():
    for name in names:
        setattr(owner, name, breakable(f"{owner.__name__}.{name}", getattr(owner, name)))
