"""The bell."""

from darkroom.bell import Bell


def test_only_those_who_listen_for_the_job_hear_it():
    """A ring wakes every listener of its job, and no other."""
    bell = Bell()
    with bell.listen("a") as one, bell.listen("a") as two, bell.listen("b") as other:
        bell.ring("a")
        assert (one.is_set(), two.is_set(), other.is_set()) == (True, True, False)
        bell.ring_all()
        assert other.is_set()


def test_who_has_gone_is_forgotten():
    """A listener that has left costs nothing, and a ring for nobody is no error."""
    bell = Bell()
    with bell.listen("a") as heard:
        pass
    bell.ring("a")
    assert not heard.is_set()
    assert not bell._listeners
