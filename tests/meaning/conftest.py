import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from darkroom.checkpoint.locate import NANO
from meaning.judgement import Editor, unseen
from training.evaluation.scenes import Scene

ANOTHER = "NANO_CHECKPOINT"
"""Names a checkpoint to be judged instead of the shipped one, before it ships."""


@pytest.fixture(scope="session")
def nano() -> Path:
    """The shipped checkpoint."""
    return Path(os.environ.get(ANOTHER, NANO))


@pytest.fixture(scope="session")
def editor(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Editor:
    return Editor(nano, tmp_path_factory.mktemp("loras"))


@pytest.fixture(scope="session")
def scenes() -> Callable[[str], list[Scene]]:
    """A job's unseen ones."""
    return cache(unseen)
