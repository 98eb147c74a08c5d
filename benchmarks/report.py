"""The results as Markdown tables, the ratio first."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Results = Mapping[str, Any]
STAGES = ("prepare", "encode", "denoise", "decode")


def write(results: Results) -> str:
    parts = [
        _setting(results),
        "### Against the reference pipeline",
        *_comparison(results),
        "### Of what the machine can multiply",
        *_floor(results),
        "### What each optimisation gives alone",
        *_ablations(results),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(results: Results) -> str:
    machine = results["machine"]
    cpu = f"{machine['cpu']} ({', '.join(machine['flags'])}), {machine['cores']} cores, {machine['threads']} threads"
    software = f"torch {machine['torch']}, diffusers {machine['diffusers']}, commit {machine['commit']}"
    return (
        f"{cpu}, load at the start {machine['load_at_start'][0]}; {software}; {machine['date']}. "
        f"{results['checkpoint']}. Medians, with the range in brackets; all in one run of {results['took_s']} s."
    )


def _comparison(results: Results) -> Iterable[str]:
    yield "The reference's seconds over ours, by round, for a whole edit; then by stage."
    rows = [
        [
            each["dtype"],
            side,
            each["pictures"],
            f"**{_ratio(ratio['total'])}**",
            *(f"{ratio[stage]['median']:.2f}×" for stage in STAGES),
            _seconds(each["seconds"]["ours"]["total"]),
            _seconds(each["seconds"][side]["total"]),
        ]
        for each in results["comparison"]
        for side, ratio in each["ratios"].items()
    ]
    yield _table(["dtype", "against", "pictures", "ratio", *STAGES, "ours", "theirs"], rows)
    for said in results["compiling"]:
        if "failed" in said:
            yield f"In {said['dtype']} the reference does not compile here: {said['failed']}"
        elif "seconds" in said:
            yield f"In {said['dtype']} compiling the reference took {said['seconds']} s, which the table leaves out."
    for said in results["left_out"]:
        yield said


def _floor(results: Results) -> Iterable[str]:
    yield _table(
        ["dtype", "pictures", "reached", "of its own shapes", "linear layers", "floor", "own shapes alone"],
        [
            [
                each["dtype"],
                each["pictures"],
                f"**{each['of_floor']:.0%}**",
                f"{each['of_own_shapes']:.0%}",
                f"{each['linear_tflops']['median']:.3f} TFLOP/s",
                f"{each['floor_tflops']:.3f} TFLOP/s",
                f"{each['own_shapes_tflops']:.3f} TFLOP/s",
            ]
            for each in results["linear"]
        ],
    )
    yield results["how_linear"]


def _ablations(results: Results) -> Iterable[str]:
    taken = results["ablations"]
    yield f"{taken['dtype']}, one picture, {taken['steps']} steps: the stage's seconds without it over those with it."
    yield _table(["optimisation", "stage", "ratio", "with", "without"], [_ablation(row) for row in taken["rows"]])


def _ablation(row: Mapping[str, Any]) -> list[str]:
    if not row["given"]:
        return [row["name"], row["stage"], "not in use on this machine", "", ""]
    ratio = row["ratio"]["median"]
    said = f"{ratio:.0f}×" if ratio >= 10 else _ratio(row["ratio"])
    if row["ratio"]["least"] <= 1 <= row["ratio"]["most"]:
        said += ", nothing measurable at this size"
    elif ratio < 1:
        said += ", a loss at this size"
    return [row["name"], row["stage"], said, _seconds(row["with_s"]), _seconds(row["without_s"])]


def _ratio(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.2f}× ({spread['least']:.2f}–{spread['most']:.2f})"


def _seconds(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.3g} s"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
