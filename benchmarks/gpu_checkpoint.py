"""A checkpoint of the published shapes whose files are holes, and random weights in place of what they would say.

Its files take no disk, yet the engine finds, plans and loads them as it would the published ones. Speed does not depend
on the weights' values; that results stay finite does, so weights keep the size of what goes through them.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from darkroom.checkpoint.layout import PARTS, STEMS, Component
from darkroom.checkpoint.published import PUBLISHED
from darkroom.checkpoint.tensors import needed_tensors, unused_tensors
from darkroom.checkpoint.weights import StoredTensor
from darkroom.engine import load, models, tiny
from darkroom.engine.kernels import PLAIN, Kernels
from darkroom.engine.load import WithoutMemory
from darkroom.engine.transformer import Transformer, TransformerConfig

MODEL = "Qwen/Qwen-Image-Edit-2509"
GAINS = {"norm_q": 1.5, "norm_k": 1.5, "norm_added": 1.5, "_mod.1": 0.5, "norm_out": 0.5}
"""Attention asks sharply, modulation is not much smaller than what it modulates."""


def hollow_checkpoint(folder: Path, *, toy: bool) -> Path:
    """toy: of the tiny checkpoint's shapes. The tokenizer is the tiny one's in either case."""
    tiny.make_tiny(folder)
    if not toy:
        (folder / "darkroom.json").unlink()
    for part, class_name in PARTS.items():
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        if not toy:
            tokens = {name: value for name, value in config.items() if name.endswith("_token_id")}
            config = {**PUBLISHED[MODEL][part], **(tokens if part == "text_encoder" else {})}
            path.write_text(json.dumps(config))
        for old in folder.joinpath(part).glob("*.safetensors*"):
            old.unlink()
        component = Component(name=part, class_name=class_name, config=config, tensors={})
        _write_hollow(
            folder / part / f"{STEMS[part]}.safetensors", needed_tensors(component) | unused_tensors(component)
        )
    return folder


def _write_hollow(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def draw(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The same name gives the same values."""
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    normal = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
    gain = next((gain for fragment, gain in GAINS.items() if fragment in name), 1.0)
    if name.endswith(".bias"):
        return normal.mul_(0.1)
    if len(shape) == 1 or name.endswith(".gamma"):
        return normal.mul_(0.1).add_(1).mul_(gain)
    return normal.mul_(gain / math.sqrt(math.prod(shape[1:])))


@contextmanager
def random_weights() -> Iterator[None]:
    """Whatever is loaded meanwhile has random values, made where they are to lie; matrices stay as they are stored."""

    def read(stored: Mapping[str, StoredTensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in stored.items():
            yield name, draw(tensor.key, tensor.shape, device)

    with patch.object(load, "_read", read), patch.object(models, "can_pack", lambda *_: False):
        yield


def random_transformer(
    config: TransformerConfig, *, device: torch.device, dtype: torch.dtype, kernels: Kernels = PLAIN
) -> Transformer:
    with WithoutMemory():
        transformer = Transformer(config, kernels)
    fill_randomly(transformer, device, dtype)
    return transformer


def fill_randomly(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    drawn = {name: draw(name, tuple(value.shape), device).to(dtype) for name, value in module.named_parameters()}
    module.load_state_dict(drawn, strict=False, assign=True)
    module.requires_grad_(requires_grad=False).eval()
