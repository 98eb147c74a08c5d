from pathlib import Path

import pytest

import darkroom.engine  # noqa: F401  says how threads wait, which must be said before a test imports torch


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny checkpoint for the whole run; tests that change it make a copy first."""
    from darkroom.engine.tiny import make_tiny  # noqa: PLC0415  torch only where a test asks for a checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_tiny(folder)
    return folder
