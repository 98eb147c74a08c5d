"""Where and in what precision to compute. `python -m darkroom.engine.device` prints it as JSON."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from darkroom.engine.linear import can_float8
from darkroom.errors import BadSetting
from darkroom.memory.host import host_memory_bytes
from darkroom.memory.plan import Device, share

CGROUP_CPUS = Path("/sys/fs/cgroup/cpu.max")
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


def set_threads(limit: Path = CGROUP_CPUS) -> None:
    """As many as there are cores for this process: torch counts the machine's, also in a container that may use fewer,
    where threads that wait for their turn hold up the others. `OMP_NUM_THREADS` is the operator's word."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else torch.get_num_threads()
    with suppress(OSError, ValueError):  # no container, or one without a limit, whose file says "max"
        quota, period = limit.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    torch.set_num_threads(min(torch.get_num_threads(), cores))


def count_gpus() -> int:
    return torch.cuda.device_count()


def measure_device(place: torch.device, limit_gb: float | None) -> Device:
    """What the memory plan is made for; the host's memory is shared by the workers of all GPUs.

    Raises `BadSetting` where the machine does not tell its memory.
    """
    host_bytes = host_memory_bytes()
    if place.type == "cpu":
        if host_bytes is None and limit_gb is None:
            raise BadSetting("this machine does not tell its memory: set DARKROOM_DEVICE_MEMORY_GB")
        memory_bytes = share(sys.maxsize if host_bytes is None else host_bytes, limit_gb)
        return Device(name="cpu", kind="cpu", memory_bytes=memory_bytes)
    gpu = _describe_gpu(place.index or 0)
    return Device(
        name=f"cuda:{place.index or 0} ({gpu['name']})",
        kind="cuda",
        memory_bytes=share(gpu["memory_bytes"], limit_gb),
        host_memory_bytes=None if host_bytes is None else host_bytes // count_gpus(),
        multiplies_fp8=gpu["multiplies_fp8"],
    )


def describe() -> dict[str, Any]:
    """gpus: all that torch sees; the rest is of what auto picks."""
    device = choose_device("auto")
    gpus = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    return {
        "torch": torch.__version__,
        "device": device.type,
        "name": gpus[0]["name"] if gpus else f"cpu, {torch.get_num_threads()} threads",
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
        "gpus": gpus,
    }


def _describe_gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "multiplies_fp8": can_float8(torch.device("cuda", index)),
    }


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()) + "\n")
