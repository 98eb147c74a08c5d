"""Which kernels a device gets: those that pay there, of those that it can have."""

import os
import shutil
from importlib.util import find_spec
from typing import Literal

import torch

from darkroom.engine.kernels import PLAIN, Kernels, compiled
from darkroom.errors import BadSetting

CompileMode = Literal["auto", "on", "off"]
WORTH_COMPILING_BYTES = 64_000_000
"""Of the blocks' matrices, from which on a CPU's steps take so long that fusing them is worth a compiler's seconds."""


def choose(mode: CompileMode, device: torch.device, blocks_bytes: int) -> Kernels:
    """On a GPU those written in Triton, on a CPU those torch's compiler makes. blocks_bytes: of the transformer's
    matrices. Raises `BadSetting` where `on` asks for a compiler that is not there."""
    on_gpu = device.type == "cuda"
    possible = _can_triton(device) if on_gpu else _cpp_compiler() is not None
    if mode == "on" and not possible:
        needed = "Triton and a GPU of the Ampere generation or later" if on_gpu else "a C++ compiler (g++ or clang++)"
        raise BadSetting(f"compile = on needs {needed}; install it, or set compile = auto")
    worth = on_gpu or blocks_bytes >= WORTH_COMPILING_BYTES
    if not possible or mode == "off" or (mode == "auto" and not worth):
        return PLAIN
    return _triton() if on_gpu else compiled()


def _can_triton(gpu: torch.device) -> bool:
    """Torch has a function for this question too, but one that takes seconds to import."""
    return find_spec("triton") is not None and torch.cuda.get_device_capability(gpu) >= (8, 0)


def _triton() -> Kernels:
    from darkroom.engine.triton_kernels import TRITON  # noqa: PLC0415  only where there is a GPU is Triton sure to be

    return TRITON


def _cpp_compiler() -> str | None:
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))), None)
