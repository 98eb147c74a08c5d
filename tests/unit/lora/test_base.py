from pathlib import Path

import pytest

from darkroom.errors import LoraHeaderInvalid, LoraShapeMismatch
from darkroom.lora.base import Base, published_modules
from darkroom.lora.header import header_bytes
from hosts import lora_file


def check(base: Base, data: bytes) -> None:
    base.check(data[: header_bytes(data)], len(data))


@pytest.mark.parametrize("name", ["Qwen/Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2511"])
def test_a_published_model(name: str) -> None:
    """A published model is known before any file of it is here."""
    check(Base(name), lora_file(side=3072))
    with pytest.raises(LoraShapeMismatch):
        check(Base(name), lora_file(side=64))


def test_a_checkpoint_that_is_here(tiny_checkpoint: Path) -> None:
    """Its own shapes count."""
    shapes = Base(str(tiny_checkpoint)).modules.shapes
    side = shapes["transformer_blocks.0.attn.to_q.weight"][0]
    check(Base(str(tiny_checkpoint)), lora_file(side=side))
    with pytest.raises(LoraShapeMismatch):
        check(Base(str(tiny_checkpoint)), lora_file(side=side + 1))


def test_one_that_is_not_here_yet(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Until it comes a file's header is looked at for its own sake; then for fitting too."""
    for name in (None, "/nowhere", "owner/never-fetched"):
        check(Base(name), lora_file())
        with pytest.raises(LoraHeaderInvalid):
            check(Base(name), lora_file() + b"x")
    late = tmp_path / "late"
    base = Base(str(late))
    check(base, lora_file())
    late.symlink_to(tiny_checkpoint)
    with pytest.raises(LoraShapeMismatch):
        check(base, lora_file(side=7))


def test_what_inspect_falls_back_on() -> None:
    """The model of 2509."""
    assert published_modules().shapes["transformer_blocks.59.attn.to_q.weight"] == (3072, 3072)
