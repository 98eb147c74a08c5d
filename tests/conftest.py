from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

import darkroom.engine  # noqa: F401  says how threads wait, which must be said before a test imports torch

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("darkroom", deadline=None)
settings.load_profile("darkroom")


@pytest.fixture
def no_ones_log() -> Iterator[None]:
    """The services that other tests of this process keep running log to where commands print."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny checkpoint for the whole run; tests that change it make a copy first."""
    from darkroom.engine.tiny import make_tiny  # noqa: PLC0415  torch only where a test asks for a checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_tiny(folder)
    return folder
