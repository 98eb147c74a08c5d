"""What an edit costs on one GPU, with random weights of the published shapes: `python -m benchmarks.gpu`.

Nothing of the published checkpoint is needed, and nothing is downloaded. Sections run in order of how much they tell;
each row is written down as soon as it is there. A row that fails does not end its section, and a section that takes too
long leaves the others their time.
"""
# ruff: noqa: E402

import time

STARTED = time.monotonic()
"""Before torch is imported, which takes its share of the time there is."""

import argparse
import json
import os
import platform
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks import gpu_edits, gpu_loras, gpu_parity, gpu_report, gpu_steps
from benchmarks.gpu_bench import Bench, Found
from benchmarks.gpu_checkpoint import hollow_checkpoint

PACKAGES = ("torch", "triton", "transformers", "diffusers", "safetensors", "pillow")
SMI = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,memory.total"


AGAIN_S = 5.0
"""After which a section that has had its time is told so once more."""


class OutOfTime(BaseException):
    """A section has had its time. No `Exception`, which some library on the way would catch."""


def environment(bench: Bench) -> Found:
    yield "commit", os.environ.get("DARKROOM_COMMIT") or _said("git", "rev-parse", "--short", "HEAD") or "unknown"
    yield "python", platform.python_version()
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "none"
    if bench.cuda:
        yield "gpu", _said("nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader")
        yield "cuda", torch.version.cuda
        yield "cudnn", torch.backends.cudnn.version()
    yield "cpus", os.cpu_count()


def load(bench: Bench) -> Found:
    """Seconds until the engine stands with weights made on the device, and of its first edits."""
    started = time.perf_counter()
    engine = bench.engine("exact")
    bench.synchronize()
    yield "random_load_s", time.perf_counter() - started
    yield "weights_gb", bench.weights_bytes["exact"] / 1e9
    for name in ("warm_s", "warm_again_s"):
        started = time.perf_counter()
        engine.warm()
        bench.synchronize()
        yield name, time.perf_counter() - started


SECTIONS: Mapping[str, tuple[Callable[[Bench], Found], float]] = {
    "environment": (environment, 20),
    "load": (load, 90),
    "reference": (gpu_parity.reference, 75),
    "exact": (gpu_edits.exact, 110),
    "loras": (gpu_loras.loras, 40),
    "fast": (gpu_edits.fast, 90),
    "encode": (gpu_edits.encode, 20),
    "floors": (gpu_steps.floors, 45),
    "profiled": (gpu_steps.profiled, 30),
    "launching": (gpu_steps.launching, 45),
    "waits": (gpu_steps.waits, 20),
    "lengths": (gpu_steps.lengths, 30),
    "reference_speed": (gpu_parity.reference_speed, 110),
    "kernels": (gpu_parity.kernels, 75),
    "whole": (gpu_edits.whole, 180),
    "ready": (gpu_edits.ready, 120),
    "warps": (gpu_parity.warps, 30),
}
"""In the order in which they run, with the most seconds each may take. From `fast` on both engines are held, and there
is no room for merged LoRAs; `ready` lets go of them."""


def main(arguments: list[str] | None = None, started: float | None = None) -> int:
    """started: when all of its time began, on the monotonic clock; None: now."""
    asked = _parser().parse_args(arguments)
    started = time.monotonic() if started is None else started
    asked.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "toy": asked.toy,
        "seconds": 0.0,
        "sections": {},
    }

    def write() -> None:
        report["seconds"] = time.monotonic() - started
        _write(report, asked.out)

    with tempfile.TemporaryDirectory(prefix="darkroom-gpu-") as folder:
        bench = Bench(
            device=torch.device(asked.device),
            toy=asked.toy,
            checkpoint=hollow_checkpoint(Path(folder) / "checkpoint", toy=asked.toy),
            diffusers=asked.diffusers,
            compile=asked.compile,
            deadline=started + 60 * asked.minutes,
        )
        for name, (section, most_s) in SECTIONS.items():
            if asked.only and name not in asked.only:
                continue
            report["sections"][name] = found = {"seconds": 0.0, "found": {}}
            _run(section, bench, most_s, found, write)
            _say(f"{name}: {found['seconds']:.1f} s, {bench.left_s:.0f} s left{', ended early' * ('error' in found)}")
    return 0


def _run(
    section: Callable[[Bench], Found], bench: Bench, most_s: float, found: dict[str, Any], write: Callable[[], None]
) -> None:
    """Puts into `found` what the section finds, and has it written down whenever there is more."""
    started = time.monotonic()
    try:
        with _at_most(min(most_s, bench.left_s)):
            for name, value in section(bench):
                found["found"][name] = value
                _say(f"  {name}: {json.dumps(value, default=str)[:300]}")
                found["seconds"] = time.monotonic() - started
                write()
    except (Exception, OutOfTime):  # noqa: BLE001  it is part of the report, and the next section may go right
        found["error"] = traceback.format_exc()
        _say(found["error"])
    bench.release()
    found["seconds"] = time.monotonic() - started
    write()


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s")

    if seconds < 1:
        raise OutOfTime("no time was left")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _write(report: Mapping[str, Any], out: Path) -> None:
    (out / "gpu.json").write_text(json.dumps(report, indent=1, default=str) + "\n")
    (out / "gpu.md").write_text(gpu_report.page(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What an edit costs on one GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu together with --toy (default: cuda)")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="the most it may take, its imports included (default: 9)"
    )
    out = Path(os.environ.get("OUT", "build/gpu"))
    parser.add_argument("--out", type=Path, default=out, help=f"folder for gpu.json and gpu.md (default: {out})")
    parser.add_argument("--diffusers", type=Path, help="wheel or folder, where diffusers is not installed")
    parser.add_argument("--compile", choices=("auto", "off"), default="auto", help="off: torch as it is, no Triton")
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), help="these sections alone")
    return parser


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(started=STARTED))
