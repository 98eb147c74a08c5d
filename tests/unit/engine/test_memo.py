"""What was encoded lately."""

import torch

from darkroom.engine.memo import Memo


class Maker:
    """Makes tensors of so many bytes, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name, size=100):
        def make():
            self.made.append(name)
            return torch.zeros(size, dtype=torch.uint8)

        return make


def test_what_was_made_is_given_again():
    maker, memo = Maker(), Memo(1000)
    first = memo.get("a", maker("a"))
    assert memo.get("a", maker("a")) is first
    assert maker.made == ["a"]


def test_what_was_used_longest_ago_goes_first():
    """Within 300 bytes there is room for three; using one keeps it."""
    maker, memo = Maker(), Memo(300)
    for name in ("a", "b", "c", "a", "d", "a", "b"):
        memo.get(name, maker(name))
    assert maker.made == ["a", "b", "c", "d", "b"]


def test_what_is_larger_than_all_the_room_is_not_kept_and_pushes_nothing_out():
    maker, memo = Maker(), Memo(300)
    memo.get("a", maker("a"))
    for _ in range(2):
        memo.get("large", maker("large", 301))
    memo.get("a", maker("a"))
    assert maker.made == ["a", "large", "large"]


def test_no_room_means_no_keeping():
    maker, memo = Maker(), Memo(0)
    for _ in range(2):
        memo.get("a", maker("a"))
    assert maker.made == ["a", "a"]
