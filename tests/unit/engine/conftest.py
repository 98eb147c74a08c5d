import json
import shutil

import pytest

from darkroom.engine.engine import Engine


@pytest.fixture(scope="session")
def engine(tiny_checkpoint):
    return Engine.load(tiny_checkpoint, device="cpu", dtype="float32")


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A checkpoint that may be changed."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def change(folder):
    """Set entries of a JSON file of `folder`."""

    def set_entries(file, **entries):
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return set_entries
