"""`darkroom doctor`: whether this machine can serve, and what to do where it can't."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from darkroom.cli.console import say, show, size_of
from darkroom.errors import DarkroomError

if TYPE_CHECKING:
    from darkroom.settings import Settings

OLDEST_PYTHON = (3, 11)
PROBE_S = 120
"""How long torch may take to be imported and to look for a GPU."""
PARAMETER_BYTES = {"bfloat16": 2, "float32": 4}
HEADROOM = 1.25
"""Memory a checkpoint takes beside its weights, as a factor on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check has found. remedy: what to do about it; None where all is well."""

    name: str
    found: str
    remedy: str | None = None


def doctor() -> None:
    """Check Python, torch, device, memory, disk, checkpoint and port; each line is ok, or says what to do.

    Exits 1 if the service could not run as things are.
    """
    findings = examine()
    show(
        ("check", "", "found"),
        ((finding.name, "ok" if finding.remedy is None else "FAIL", finding.found) for finding in findings),
    )
    broken = [finding for finding in findings if finding.remedy is not None]
    for finding in broken:
        say(f"{finding.name}: {finding.remedy}")
    if broken:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Every check, in the order in which its failure would hurt."""
    from darkroom.settings import read_settings

    findings = [_python()]
    probe, device = _device()
    findings.append(probe)
    try:
        settings = read_settings()
    except DarkroomError as error:
        return [*findings, Finding(name="settings", found="bad", remedy=error.message)]
    findings.append(_chosen_device(settings, device))
    parameters, checkpoint = _checkpoint(settings)
    findings += [checkpoint, _memory(settings, device, parameters), _disk(settings), _port(settings)]
    return findings


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding(name="python", found=found, remedy="install Python 3.11 or newer, and Darkroom into it")
    return Finding(name="python", found=found)


def _device() -> tuple[Finding, dict[str, Any]]:
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


def _chosen_device(settings: "Settings", device: dict[str, Any]) -> Finding:
    found = f"{device.get('name', 'unknown')}, computes in {device.get('dtype', 'unknown')}"
    if settings.device.startswith("cuda") and device.get("device") != "cuda":
        return Finding(
            name="device",
            found=found,
            remedy=f"DARKROOM_DEVICE = {settings.device!r}, but torch sees no GPU: install the driver and a CUDA build "
            "of torch, or set it to auto",
        )
    return Finding(name="device", found=found)


def _checkpoint(settings: "Settings") -> tuple[int | None, Finding]:
    """The checkpoint, and how many parameters it has if it is whole."""
    from darkroom.checkpoint.inspect import inspect
    from darkroom.checkpoint.locate import locate
    from darkroom.cli.serve import require_checkpoint

    try:
        require_checkpoint(settings)
        report = inspect(locate(str(settings.checkpoint), fetch=False))
    except DarkroomError as error:
        return None, Finding(name="checkpoint", found=settings.checkpoint or "none", remedy=error.message)
    found = f"{settings.checkpoint}, {report.parameters:,} parameters"
    if report.problems:
        return None, Finding(name="checkpoint", found=found, remedy="; ".join(report.problems))
    return report.parameters, Finding(name="checkpoint", found=found)


def _memory(settings: "Settings", device: dict[str, Any], parameters: int | None) -> Finding:
    memory_bytes = device.get("memory_bytes")
    if memory_bytes is None:
        return Finding(name="memory", found="unknown")
    found = f"{size_of(memory_bytes)} on the device"
    dtype = device["dtype"] if settings.dtype == "auto" else settings.dtype
    if parameters is None:
        return Finding(name="memory", found=found)
    needed_bytes = parameters * PARAMETER_BYTES[dtype] * HEADROOM
    found += f", {size_of(needed_bytes)} needed in {dtype}"
    if needed_bytes > memory_bytes:
        return Finding(name="memory", found=found, remedy="take a machine with more memory, or a smaller checkpoint")
    return Finding(name="memory", found=found)


def _disk(settings: "Settings") -> Finding:
    data = settings.data
    there = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    free_bytes = shutil.disk_usage(there).free
    found = f"{size_of(free_bytes)} free for {data}"
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Finding(name="disk", found=found, remedy=f"{there} can't be written to: set DARKROOM_DATA to another")
    if free_bytes < settings.min_free_bytes:
        return Finding(
            name="disk",
            found=found,
            remedy=f"free {size_of(settings.min_free_bytes)}, or set DARKROOM_DATA to another disk",
        )
    return Finding(name="disk", found=found)


def _port(settings: "Settings") -> Finding:
    from darkroom.cli.listener import listen

    try:
        listen(settings.host, settings.port).close()
    except DarkroomError as error:
        return Finding(name="port", found=f"{settings.host} port {settings.port} is taken", remedy=error.message)
    return Finding(name="port", found=f"{settings.host} port {settings.port} is free")
