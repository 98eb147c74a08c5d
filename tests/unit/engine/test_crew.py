"""Threads that take many small pieces of work."""

import threading
import time

import pytest
import torch

from darkroom.engine.crew import Crew


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pieces", [0, 1, 2, 100])
def test_every_piece_is_done_once(threads, pieces):
    """However many there are for each thread."""
    done = []
    Crew(threads).each(done.append, range(pieces))
    assert sorted(done) == [*range(pieces)]


def test_each_thread_computes_alone_and_no_other_is_told_so():
    """The caller, and every thread to come, keep the number that torch had; and no gradient is kept."""
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        crew = Crew(2)
        crew.each(lambda _: found.append((torch.get_num_threads(), torch.is_inference_mode_enabled())), range(4))
        assert found == 4 * [(1, True)]
        newcomer = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        newcomer.start()
        newcomer.join()
        assert (torch.get_num_threads(), found[-1]) == (2, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_piece_raises_comes_to_the_caller(threads):
    """Work that failed is not taken for done, and the crew goes on."""

    def work(piece):
        if piece == 3:
            raise ValueError(piece)

    crew, done = Crew(threads), []
    with pytest.raises(ValueError, match="3"):
        crew.each(work, range(6))
    crew.each(done.append, range(6))
    assert sorted(done) == [*range(6)]


def test_no_thread_is_at_work_when_one_has_failed():
    """What the others have in hand is done before the caller hears of it."""
    begun, done = threading.Event(), []

    def work(piece):
        if piece == 0:
            assert begun.wait(10)
            raise ValueError
        begun.set()
        time.sleep(0.1)
        done.append(piece)

    with pytest.raises(ValueError):  # noqa: PT011  it has no text
        Crew(2).each(work, range(2))
    assert done == [1]
