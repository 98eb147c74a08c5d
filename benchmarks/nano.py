"""What an edit by the shipped checkpoint costs, from the request to the picture's bytes over HTTP, against the
reference pipeline on the same checkpoint, in one run on this machine: `make bench`.

Writes nano.json and nano.md, a table of it, into benchmarks/results.

The engine is not imported here: it tells OpenMP what this process would hand on to its worker, whom others tell.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine, report
from benchmarks.elsewhere import REFERENCE, Elsewhere
from benchmarks.request import make_request
from benchmarks.timing import Spread, in_turns
from darkroom.checkpoint.locate import NANO
from darkroom.observability import logging
from darkroom.settings import Settings
from serving import Node, serving

STEPS = 8
FIELDS = ("image", "image_2", "image_3")
SLUG = "qwen-image-edit-plus"
HOW = (
    "Ours: from the request to the PNG's bytes over HTTP, books kept and all. The reference: diffusers, from pixels to "
    "pixels, in memory, in a process of its own."
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=NANO, help="another one than the shipped")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="for what is found (default: %(default)s)")
    asked = parser.parse_args(arguments)
    found = measure(asked.checkpoint, rounds=asked.rounds)
    text = write(found)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "nano.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (asked.out / "nano.md").write_text(text, encoding="utf-8")
    print(text)


def measure(checkpoint: Path, *, rounds: int) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": machine.describe(), "rows": []}
    with tempfile.TemporaryDirectory() as data:
        settings = Settings(data=Path(data), checkpoint=str(checkpoint), device="cpu", log_level="error")
        with (
            serving(settings) as node,
            node.client(node.new_key("bench", credits=100_000)) as client,
            closing(Elsewhere(REFERENCE, checkpoint, dtype := _dtype(node))) as reference,
        ):
            found["checkpoint"] = f"The shipped checkpoint, {dtype}, {STEPS} steps, no guidance"

            def theirs(number: int, pictures: int) -> float:
                return reference.edit(number, pictures=pictures, steps=STEPS, guided=False)["total"]

            for pictures in (1, 2):
                taken = in_turns(
                    {
                        "ours": lambda number, pictures=pictures: _served(client, number, pictures),
                        "reference": lambda number, pictures=pictures: theirs(number, pictures),
                    },
                    rounds=rounds,
                    about=f"{pictures} picture(s)",
                )
                found["rows"].append(_row(pictures, taken))
    return found | {"took_s": round(time.perf_counter() - started)}


def _dtype(node: Node) -> str:
    """What the worker has chosen, once it is ready."""
    while (engine := node.service.health.engine) is None:
        time.sleep(0.1)
    return engine.dtype


def _served(client: httpx.Client, number: int, pictures: int) -> float:
    """Seconds until the picture is here."""
    request = make_request(number, pictures=pictures, steps=STEPS, guided=False)
    files = {name: _png(picture) for name, picture in zip(FIELDS, request.pictures, strict=False)}
    params = {"prompt": request.edit.prompt, "seed": request.edit.seed, "guidance_scale": 1, "image_format": "png"}
    started = time.perf_counter()
    answer = client.post(f"/v1/{SLUG}", files=files, data=params | {"go_fast": "true", "num_inference_steps": STEPS})
    taken_s = time.perf_counter() - started
    if answer.status_code != httpx.codes.OK or not answer.content.startswith(b"\x89PNG"):
        raise RuntimeError(f"the edit failed: {answer.status_code} {answer.text}")
    return taken_s


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _row(pictures: int, taken: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    ratios = [theirs / ours for ours, theirs in zip(taken["ours"], taken["reference"], strict=True)]
    seconds = {side: Spread.of(values).row() for side, values in taken.items()}
    return {"pictures": pictures, "ratio": Spread.of(ratios).row(), "seconds": seconds}


def write(found: Mapping[str, Any]) -> str:
    rows = [
        [
            row["pictures"],
            f"**{report._ratio(row['ratio'])}**",
            report._seconds(row["seconds"]["ours"]),
            report._seconds(row["seconds"]["reference"]),
        ]
        for row in found["rows"]
    ]
    table = report._table(["pictures", "ratio", "ours", "theirs"], rows)
    return f"{report._setting(found)}\n\n{HOW}\n\n{table}\n"


if __name__ == "__main__":
    logging.configure("console", level="error")
    main()
