"""What a worker is told."""

import threading

import pytest

from darkroom.worker.messages import Drain, Released, Wake, to_line
from darkroom.worker.orders import Orders


class Pipe:
    """Lines that arrive when the test sends them, like those of a pipe that stays open."""

    def __init__(self):
        self._lines, self._sent = [], threading.Condition()

    def send(self, message):
        with self._sent:
            self._lines.append(to_line(message))
            self._sent.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self._sent:
            self._sent.wait_for(lambda: self._lines)
            return self._lines.pop(0)


@pytest.fixture
def told():
    orders, pipe = Orders(), Pipe()
    threading.Thread(target=orders.listen, args=(pipe,), daemon=True).start()
    return orders, pipe


def test_a_wake_up_ends_the_wait(told):
    """A worker that waits for work hears at once that there is some."""
    orders, pipe = told
    pipe.send(Wake())
    orders.wait(60)
    assert not orders.draining


def test_a_drain_leaves_the_running_job_its_grace(told):
    """No more jobs at once; the running one is overdue only after the grace."""
    orders, pipe = told
    pipe.send(Drain(grace_s=1000))
    orders.wait(60)
    assert orders.draining
    assert not orders.overdue


def test_the_shortest_grace_holds(told):
    """A second, shorter order to drain is obeyed; a longer one afterwards doesn't win time back."""
    orders, _ = told
    for grace_s in (1000, 0, 1000):
        orders.listen([to_line(Drain(grace_s=grace_s))])
    assert orders.overdue


def test_a_service_that_is_gone_means_now():
    """The end of the pipe is an order to give back at once."""
    orders = Orders()
    orders.listen([])
    assert orders.overdue


def test_a_message_for_others_is_an_error():
    """A worker that is told what only it can say does not go on as if nothing were."""
    orders = Orders()
    with pytest.raises(ValueError, match="not for a worker"):
        orders.listen([to_line(Released(job_id="a"))])
    assert orders.overdue
