import re

import pytest

from darkroom import errors
from darkroom.errors import DarkroomError
from darkroom.job import Failure

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DarkroomError)]
LEAVES = [kind for kind in ALL if not kind.__subclasses__()]


def drawn() -> list[tuple[int, str]]:
    """The module docstring's tree: depth and name of each line."""
    tree = re.findall(r"^    ([│ ├└─]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    return [(len(branch) // 4, name) for branch, name in tree]


def walked(kind: type[DarkroomError], depth: int = 0) -> list[tuple[int, str]]:
    return [(depth, kind.__name__), *(row for child in kind.__subclasses__() for row in walked(child, depth + 1))]


def test_the_tree_is_drawn() -> None:
    """The module's docstring draws exactly the classes there are, in the order of their definition."""
    assert drawn() == walked(DarkroomError)


@pytest.mark.parametrize("kind", LEAVES)
def test_leaves_have_codes(kind: type[DarkroomError]) -> None:
    """What is raised has a code of its own, fit for machines."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", vars(kind)["code"])


def test_codes_are_unique() -> None:
    """No two errors share a code, and what is only a family has none."""
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert not [kind for kind in ALL if kind not in LEAVES and hasattr(kind, "code")]


def test_an_error_becomes_a_failure() -> None:
    """A failed job keeps code, message and field of the error that ended it."""
    error = errors.PictureInvalid("image_2: not a picture", field="image_2")
    assert str(error) == "image_2: not a picture"
    assert Failure.of(error) == Failure(code="image_invalid", message="image_2: not a picture", field="image_2")
    assert Failure.of(errors.WorkerLost("gone")).field is None
