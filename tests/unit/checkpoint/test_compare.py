from pathlib import Path

import pytest

from darkroom.checkpoint.compare import compare
from darkroom.checkpoint.weights import StoredTensor
from darkroom.errors import BadCheckpoint


def stored(*shape):
    return StoredTensor(key="", shape=shape, dtype="BF16", file=Path("model.safetensors"))


def test_what_fits_has_no_differences():
    """The same names and shapes, and nothing is raised."""
    differences = compare({"a": (2, 3)}, {"a": stored(2, 3)})
    assert not differences
    differences.raise_for("vae")


def test_each_kind_of_difference_is_named():
    """Missing, left over and misshapen tensors are told apart, with the shapes."""
    differences = compare({"a": (2, 3), "b": (1,)}, {"a": stored(3, 2), "c": stored()})
    with pytest.raises(BadCheckpoint) as caught:
        differences.raise_for("vae")
    assert caught.value.message == (
        "vae does not fit its config.json: b is missing; c is unexpected; a (3 × 2, not 2 × 3) is of the wrong shape"
    )


def test_many_of_a_kind_are_counted():
    """A wholly different file does not fill the screen."""
    differences = compare({f"t{number}": (1,) for number in range(9)}, {})
    assert str(differences) == "t0, t1, t2 and 6 more are missing"
