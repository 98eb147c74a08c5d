"""What the figures were taken on."""

import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from darkroom.worker.environment import ENVIRONMENT

FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
"""Of a processor, that decide how it multiplies."""


def describe() -> dict[str, Any]:
    return {
        **_cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "told": {name: os.environ.get(name) for name in ENVIRONMENT},
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        "commit": _git("rev-parse", "--short", "HEAD") + ("-dirty" if _git("status", "--porcelain", "src") else ""),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> dict[str, Any]:
    path = Path("/proc/cpuinfo")
    pairs = [line.split(":", 1) for line in path.read_text().splitlines() if ":" in line] if path.exists() else []
    said = {name.strip(): value.strip() for name, value in pairs}
    flags = said.get("flags", "").split()
    return {
        "cpu": said.get("model name", "unknown"),
        "family": f"{said.get('cpu family', '?')}/{said.get('model', '?')}",
        "flags": [flag for flag in FLAGS if flag in flags],
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
