"""What this machine can compute on."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.memory.plan import Device
    from darkroom.settings import Settings

PROBE_S = 120
"""How long torch may take to be imported and to look for a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check has found. remedy: what to do about it; None where all is well."""

    name: str
    found: str
    remedy: str | None = None


def probe() -> tuple[Finding, dict[str, Any]]:
    """torch, and what it says of the machine; from a process of its own, as this one never imports it."""
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "darkroom.engine.device"],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            name="torch", found=f"no answer in {PROBE_S} s", remedy="look at the machine's load, and at its GPU driver"
        ), {}
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        return Finding(name="torch", found=last, remedy="reinstall it: pip install --force-reinstall torch"), {}
    device = json.loads(probe.stdout)
    return Finding(name="torch", found=device["torch"]), device


def choose_device(settings: "Settings", found: Mapping[str, Any]) -> tuple[Finding, "Device | None"]:
    """The device that the settings name, of those torch has found; None where it is not there, or not known."""
    from darkroom.memory.host import host_memory_bytes
    from darkroom.memory.plan import Device, share

    if not found:
        return Finding(name="device", found="unknown"), None
    gpus, host_bytes, computes = found.get("gpus", ()), host_memory_bytes(), f"computes in {found['dtype']}"
    kind, _, index = settings.device.partition(":")
    if kind == "cpu" or (kind == "auto" and not gpus):
        finding = Finding(name="device", found=f"{found['name']}, {computes}")
        if host_bytes is None:
            return finding, None
        return finding, Device(name="cpu", kind="cpu", memory_bytes=share(host_bytes, settings.device_memory_gb))
    number = int(index or 0)
    if number >= len(gpus):
        remedy = f"DARKROOM_DEVICE = {settings.device!r} is not among the {len(gpus)} GPUs that torch sees: "
        remedy += "install the driver and a CUDA build of torch, or set it to auto"
        return Finding(name="device", found=found["name"], remedy=remedy), None
    gpu = gpus[number]
    workers = f"; a worker on each of {len(gpus)} GPUs" if kind == "auto" and len(gpus) > 1 else ""
    return Finding(name="device", found=f"cuda:{number}, {gpu['name']}, {computes}{workers}"), Device(
        name=f"cuda:{number} ({gpu['name']})",
        kind="cuda",
        memory_bytes=share(gpu["memory_bytes"], settings.device_memory_gb),
        host_memory_bytes=None if host_bytes is None else host_bytes // len(gpus),
        multiplies_fp8=gpu["multiplies_fp8"],
    )
