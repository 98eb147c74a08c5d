"""Work on many small tensors: a thread for each of them, rather than all threads for one after another.

A product of few ranks is over before torch's threads have shared it out.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")


class Crew:
    """threads: each of which computes by itself; with one, the caller does all the work."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        if threads == 1:
            return
        before, begun = torch.get_num_threads(), Barrier(threads + 1)
        self._pool = ThreadPoolExecutor(threads, "crew", _begin, (begun,))
        for _ in range(threads):
            self._pool.submit(int)
        begun.wait()
        # What they set for themselves is also what every thread to come would begin with.
        torch.set_num_threads(before)

    def each(self, work: Callable[[T], None], pieces: Iterable[T]) -> None:
        """Does the work on all of them, in no order. pieces: made by the caller, all of them first; with one thread,
        each when the one before it is done.

        Raises what any of it raises, once no thread is at work any more.
        """
        if self._threads == 1:
            _do(work, pieces)
            return
        shared = iter([*pieces])
        done = [self._pool.submit(_do, work, shared) for _ in range(self._threads)]
        wait(done)
        for each in done:
            each.result()


def _begin(begun: Barrier) -> None:
    torch.get_num_threads()  # a thread's first question sets its number to the process's: ask before setting it
    torch.set_num_threads(1)
    begun.wait()


@torch.inference_mode()
def _do(work: Callable[[T], None], pieces: Iterable[T]) -> None:
    for piece in pieces:
        work(piece)
