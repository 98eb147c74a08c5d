"""What an edit costs, ours and the reference pipeline's, in one run on this machine: `make bench`.

Writes bench.json, bench.md (tables of it) and growth.svg into benchmarks/results.
"""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import ablations, environments, growth, linear, machine, plot, report
from benchmarks.checkpoint import sized_checkpoint
from benchmarks.comparison import Comparison
from benchmarks.elsewhere import ALIKE, COMPILED, begin_as_ours
from benchmarks.work import MEMO_BYTES
from darkroom.engine.device import Precision, choose_dtype
from darkroom.engine.engine import Engine

CHECKPOINT = Path("build/bench/sized")
LINEAR_STEPS = 2
"""Of the denoise stage whose linear layers are counted: all steps are alike."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured. dtypes: beside the one that the engine chooses by itself on this machine. sides: beside
    ours and the reference. stage_steps: of the denoise stages that are timed by themselves."""

    pictures: tuple[int, ...]
    steps: int
    stage_steps: int
    rounds: int
    dtypes: tuple[Precision, ...]
    sides: tuple[str, ...]
    floor_side: int
    ablations_s: float
    machines: tuple[str, ...]
    sides_px: tuple[int, ...]
    growing_steps: tuple[int, ...]
    growing_rounds: int


WHOLE = Extent(
    pictures=(1, 2, 3),
    steps=8,
    stage_steps=4,
    rounds=3,
    dtypes=("float32", "bfloat16"),
    sides=(COMPILED, ALIKE),
    floor_side=4096,
    ablations_s=90,
    machines=(environments.IDLE, environments.BUSY),
    sides_px=(192, 256, 320, 384),
    growing_steps=(2, 4, 8, 12),
    growing_rounds=2,
)
QUICK = Extent(
    pictures=(1,),
    steps=2,
    stage_steps=2,
    rounds=1,
    dtypes=(),
    sides=(),
    floor_side=64,
    ablations_s=0,
    machines=(),
    sides_px=(64, 96),
    growing_steps=(2, 3),
    growing_rounds=1,
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="go through everything once: figures that say nothing")
    parser.add_argument("--checkpoint", type=Path, help=f"another one than {CHECKPOINT}, which is made if absent")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="where results are written (default: %(default)s)"
    )
    asked = parser.parse_args(arguments)
    checkpoint = asked.checkpoint or sized_checkpoint(CHECKPOINT)
    save(measure(checkpoint, QUICK if asked.quick else WHOLE), asked.out)


def measure(checkpoint: Path, extent: Extent) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "checkpoint": _describe(checkpoint),
        "comparison": [],
        "compiling": [],
        "linear": [],
        "how_linear": linear.HOW,
        "left_out": [],
    }
    chosen: Precision = "bfloat16" if choose_dtype("auto", torch.device("cpu")) == torch.bfloat16 else "float32"
    for dtype in dict.fromkeys((*extent.dtypes, chosen)):
        if dtype == "bfloat16" != chosen:
            found["left_out"].append("bfloat16 is left out: this processor does not multiply it in hardware.")
            continue
        engine = Engine.load(checkpoint, device="cpu", dtype=dtype, memo_bytes=MEMO_BYTES)
        with closing(Comparison(checkpoint, dtype, extent.sides)) as both:
            _compare(both, extent, found)
            if dtype == chosen:
                found["growth"] = _grow(both, extent, found)
        found["linear"] += _linear(engine, extent)
        if dtype == chosen:
            found["ablations"] = _ablations(engine, checkpoint, dtype, extent)
    return found | {"took_s": round(time.perf_counter() - started)}


def _compare(both: Comparison, extent: Extent, found: dict[str, Any]) -> None:
    found["compiling"].append(both.compiling)
    for pictures in extent.pictures:
        row = both.row(pictures=pictures, steps=extent.steps, rounds=extent.rounds, sides=extent.sides)
        found["comparison"].append(row)


def _grow(both: Comparison, extent: Extent, found: dict[str, Any]) -> dict[str, Any]:
    compared = [row for row in found["comparison"] if row["dtype"] == both.dtype]
    return growth.measure(
        both, compared, sides_px=extent.sides_px, steps=extent.growing_steps, rounds=extent.growing_rounds
    )


def _linear(engine: Engine, extent: Extent) -> list[dict[str, Any]]:
    return [
        linear.measure(engine, pictures=pictures, steps=LINEAR_STEPS, rounds=extent.rounds, side=extent.floor_side)
        for pictures in sorted({extent.pictures[0], extent.pictures[-1]})
    ]


def _ablations(engine: Engine, checkpoint: Path, dtype: Precision, extent: Extent) -> dict[str, Any]:
    steps, rounds = extent.stage_steps, extent.rounds
    rows = ablations.measure(engine, checkpoint, steps=steps, rounds=rounds, budget_s=extent.ablations_s)
    rows += environments.measure(checkpoint, dtype=dtype, steps=steps, rounds=rounds, machines=extent.machines)
    return {"dtype": dtype, "steps": steps, "rows": rows}


def save(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = report.write(found)
    (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(text, encoding="utf-8")
    (folder / "growth.svg").write_text(plot.draw(found["growth"]), encoding="utf-8")
    print(text)


def _describe(checkpoint: Path) -> str:
    config = json.loads((checkpoint / "transformer" / "config.json").read_text())
    sizes = json.loads((checkpoint / "darkroom.json").read_text())
    width = config["num_attention_heads"] * config["attention_head_dim"]
    side_px = round(sizes["output_area_px"] ** 0.5)
    return (
        f"Transformer of {config['num_layers']} layers × {width}, random weights, results of {side_px} × {side_px} px"
    )


if __name__ == "__main__":
    begin_as_ours("benchmarks.run")
    main()
