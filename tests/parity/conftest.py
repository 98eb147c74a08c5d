import pytest

from darkroom.engine.engine import Engine
from parity.oracle import Reference


@pytest.fixture(scope="session")
def reference(tiny_checkpoint):
    return Reference(tiny_checkpoint)


@pytest.fixture(scope="session")
def engine(tiny_checkpoint):
    return Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
