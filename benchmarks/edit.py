"""One edit, ours against the reference pipeline of diffusers, in turns on the same checkpoint in the same process.

Prints the ratio first. On a checkpoint this small most of the time is overhead, not arithmetic: the figures say what a
small model costs on this machine, and nothing about the published weights on a GPU.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.engine.engine import Engine
from darkroom.engine.tiny import make_tiny
from parity.oracle import Reference

ROUNDS = 7
STEPS = 8
PHOTO = Path(__file__).parent.parent / "samples" / "mug.jpg"
RESULTS = Path(__file__).parent / "results" / "edit.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny"
        make_tiny(checkpoint)
        rows = [row(checkpoint, pictures) for pictures in (1, 3)]
    report = {"machine": machine(), "steps": STEPS, "guided": True, "dtype": "float32", "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{STEPS} steps with guidance, float32, tiny checkpoint; medians of {ROUNDS} in turns")
    for each in rows:
        times = f"ours {each['ours_s']:.3f} s, reference {each['theirs_s']:.3f} s"
        print(f"{each['pictures']} picture(s): {each['ratio']:.2f}× ({times})")
    print(f"written to {RESULTS}")


def row(checkpoint: Path, count: int) -> dict[str, float]:
    """The medians with `count` input pictures."""
    engine, reference = Engine.load(checkpoint, device="cpu", dtype="float32"), Reference(checkpoint)
    pictures = [Image.open(PHOTO).convert("RGB")] * count
    edit = Edit(
        prompt="Turn the camera to a top-down view.",
        negative_prompt=" ",
        pictures=tuple(PictureRef(field=f"image_{number}", blob="none") for number in range(1, count + 1)),
        aspect_ratio=None,
        seed=7,
        num_inference_steps=STEPS,
        true_cfg_scale=4.0,
        output=Output(format=ImageFormat.PNG, quality=95),
    )

    def ours() -> None:
        engine.edit(edit, pictures, lambda _: None)

    def theirs() -> None:
        reference.edit(edit, pictures)

    ours_s, theirs_s = in_turns(ours, theirs)
    return {
        "pictures": count,
        "ratio": statistics.median(b / a for a, b in zip(ours_s, theirs_s, strict=True)),
        "ours_s": statistics.median(ours_s),
        "theirs_s": statistics.median(theirs_s),
    }


def in_turns(first: Callable[[], None], second: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Seconds of each, a warm-up left out: taken in turns, so that a slow spell of the machine meets both."""
    for warm_up in (first, second):
        warm_up()
    times: tuple[list[float], list[float]] = ([], [])
    for done in range(ROUNDS):
        for call, taken in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
        print(f"\rround {done + 1} of {ROUNDS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def machine() -> dict[str, str]:
    cpus = [line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "cpu": cpus[0] if cpus else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "commit": commit.strip(),
    }


if __name__ == "__main__":
    main()
