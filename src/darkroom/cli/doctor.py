"""`darkroom doctor`: whether this machine can serve, and what to do where it can't."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.cli.console import say, show, size_of
from darkroom.cli.machine import Finding
from darkroom.errors import BadCheckpoint, BadSetting, DarkroomError

if TYPE_CHECKING:
    from darkroom.checkpoint.inspect import Report
    from darkroom.memory.needs import Needs
    from darkroom.memory.plan import Device, Plan
    from darkroom.settings import Settings

EXAMPLES = """Examples:

  darkroom doctor

  darkroom doctor --checkpoint Qwen/Qwen-Image-Edit-2509 --gpu-gb 48
"""

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """plan: None where one could not be made; a finding says why."""

    findings: tuple[Finding, ...]
    plan: "Plan | None" = None


def doctor(
    checkpoint: Annotated[
        str | None, typer.Option(metavar="PATH|HF-ID", help="The model. (default: DARKROOM_CHECKPOINT)")
    ] = None,
    gpu_gb: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0, help="Only show the plan for a GPU of this size that multiplies float8."),
    ] = None,
) -> None:
    """Check Python, torch, device, memory, disk, checkpoint and port, and show what of the model lies where in memory.

    Each line is ok, or says what to do. Exits 1 if the service could not run as things are.
    """
    from darkroom.cli.plan import show_plan

    if gpu_gb is not None:
        show_plan(imagine(checkpoint, gpu_gb))
        return
    examination = examine(checkpoint)
    show(
        ("check", "", "found"),
        ((finding.name, "ok" if finding.remedy is None else "FAIL", finding.found) for finding in examination.findings),
    )
    if examination.plan is not None:
        show_plan(examination.plan)
    broken = [finding for finding in examination.findings if finding.remedy is not None]
    for finding in broken:
        say(f"{finding.name}: {finding.remedy}")
    if broken:
        raise typer.Exit(1)


def examine(checkpoint: str | None = None) -> Examination:
    """Every check, in the order in which its failure would hurt. checkpoint: in place of the settings' own."""
    from darkroom.cli import machine
    from darkroom.cli.default import with_checkpoint
    from darkroom.settings import read_settings

    torch, found = machine.probe()
    findings = [_python(), torch]
    try:
        settings = with_checkpoint(read_settings(checkpoint=checkpoint), lambda: found)
    except DarkroomError as error:
        return Examination(findings=(*findings, Finding(name="settings", found="bad", remedy=error.message)))
    chosen, device = machine.choose_device(settings, found)
    whole, needs = _checkpoint(settings)
    memory, plan = _memory(settings, device, needs, found)
    findings += [chosen, whole, memory, _disk(settings), _port(settings)]
    return Examination(findings=tuple(findings), plan=plan)


def imagine(checkpoint: str | None, gpu_gb: float) -> "Plan":
    """The plan for a GPU that need not be here, beside as much host memory as it takes; of the real checkpoint, unless
    another is named. Raises `SetupError`."""
    from darkroom.cli.default import REAL
    from darkroom.cli.plan import plan_for
    from darkroom.memory.plan import GB, Device
    from darkroom.settings import read_settings

    settings = read_settings(checkpoint=checkpoint)
    settings = settings.model_copy(update={"checkpoint": settings.checkpoint or REAL})
    finding, needs = _checkpoint(settings)
    if needs is None:
        raise BadCheckpoint(f"{finding.name} {finding.found}: {finding.remedy}")
    gpu = Device(name="a GPU", kind="cuda", memory_bytes=int(gpu_gb * GB), multiplies_fp8=True)
    return plan_for(settings, needs, gpu, auto="bfloat16")


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding(name="python", found=found, remedy="install Python 3.11 or newer, and Darkroom into it")
    return Finding(name="python", found=found)


def _checkpoint(settings: "Settings") -> tuple[Finding, "Needs | None"]:
    """Whether the checkpoint is whole, and what it takes where that is known."""
    from darkroom.checkpoint.inspect import inspect
    from darkroom.checkpoint.locate import locate

    name = str(settings.checkpoint)
    try:
        report = inspect(locate(name, fetch=False))
    except DarkroomError as error:
        return Finding(name="checkpoint", found=name, remedy=error.message), _needs(name, None)
    found = f"{name}, {report.parameters:,} parameters"
    return Finding(name="checkpoint", found=found, remedy="; ".join(report.problems) or None), _needs(name, report)


def _needs(checkpoint: str, report: "Report | None") -> "Needs | None":
    """What it takes: by its own configs, or as it was published while not all of it is here. None: not known."""
    from darkroom.checkpoint.declaration import WorkingSizes
    from darkroom.checkpoint.layout import PARTS
    from darkroom.checkpoint.published import PUBLISHED
    from darkroom.memory.needs import Needs

    if report is not None and len(report.parts) == len(PARTS):
        sizes = report.declared.working_sizes if report.declared else WorkingSizes()
        return Needs.read({part.name: part.config for part in report.parts}, sizes)
    return Needs.read(PUBLISHED[checkpoint], WorkingSizes()) if checkpoint in PUBLISHED else None


def _memory(
    settings: "Settings", device: "Device | None", needs: "Needs | None", found: Mapping[str, Any]
) -> tuple[Finding, "Plan | None"]:
    from darkroom.cli.plan import plan_for
    from darkroom.memory.plan import in_gb

    if device is None:
        return Finding(name="memory", found="unknown"), None
    has = in_gb(device.memory_bytes)
    if needs is None:
        return Finding(name="memory", found=has), None
    try:
        plan = plan_for(settings, needs, device, auto=found["dtype"])
    except BadSetting as error:
        return Finding(name="memory", found=has, remedy=error.message), None
    return Finding(name="memory", found=f"{has}, of which {in_gb(plan.device_bytes)} are planned for"), plan


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
        return Finding(name="port", found=f"{settings.host} port {settings.port}", remedy=error.message)
    return Finding(name="port", found=f"{settings.host} port {settings.port} is free")
