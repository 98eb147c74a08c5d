"""Where and in what precision to compute. `python -m darkroom.engine.device` prints it as JSON."""

import json
import os
import sys
from typing import Any, Literal

import torch

from darkroom.errors import BadSetting

Precision = Literal["auto", "bfloat16", "float32"]


def choose_device(name: str) -> torch.device:
    """name: auto, cpu, cuda or cuda:N; auto is the first GPU, else the CPU. Raises `BadSetting` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadSetting(f"device = {name!r} must be auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise BadSetting(f"device = {name!r} must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadSetting(f"device = {name!r}: torch sees {torch.cuda.device_count()} CUDA devices; auto picks one")
    return device


def choose_dtype(name: Precision, device: torch.device) -> torch.dtype:
    """auto: bfloat16 where the device multiplies it in hardware, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or _cpu_has_bfloat16() else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def describe() -> dict[str, Any]:
    device = choose_device("auto")
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = properties.name
        memory_bytes: int | None = properties.total_memory
    else:
        name, memory_bytes = f"cpu, {torch.get_num_threads()} threads", _memory_bytes()
    return {
        "torch": torch.__version__,
        "device": device.type,
        "name": name,
        "memory_bytes": memory_bytes,
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
    }


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()) + "\n")
