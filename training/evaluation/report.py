"""The figures as Markdown: the bars first, then every group's means."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_TITLES = {
    "gain_changed_db": "gain on the changed area, dB",
    "gain_whole_db": "gain on the whole, dB",
    "whole_db": "whole picture to the truth, dB",
    "nearer": "nearer than the input",
    "vae_db": "the VAE alone, dB",
    "adapter_db": "with the LoRA against without, dB",
    "right_db": "right against wrong prompt, dB",
    "right_wins": "right wins",
    "nearest": "nearest of all that might be asked",
    "fast_db": "go_fast against 20 steps, dB",
}
_SHARES = frozenset(("nearer", "right_wins", "nearest"))
_HEAD = """\
# What the small checkpoint does, in figures

<!-- Written by `make eval` (training/evaluate.py). -->

What the measures mean, and how they are taken: [nano.md](nano.md).

"""


def page(results: Mapping[str, Any]) -> str:
    """For the docs."""
    return _HEAD + write(results)


def write(results: Mapping[str, Any]) -> str:
    bars = results["bars"]
    held = sum(bar["held"] for bar in bars)
    taken = (
        f"{results['scenes']} unseen scenes, {results['edits']} edits through the HTTP API, checkpoint "
        f"{results['checkpoint']}, seed {results['seed']}, {results['date']}."
    )
    parts = [
        taken,
        f"## Bars: {held} of {len(bars)} held",
        _table(
            ("group", "measure", "at least", "is", ""),
            (
                (
                    bar["group"],
                    _TITLES[bar["measure"]],
                    _shown(bar["measure"], bar["least"]),
                    _shown(bar["measure"], bar["value"]),
                    "held" if bar["held"] else "**not held**",
                )
                for bar in bars
            ),
        ),
        "## Means over scenes",
        _means("group", results["groups"]),
        "The base's edits one by one:",
        _means("edit", results["base_jobs"]),
    ]
    return "\n\n".join(parts) + "\n"


def _means(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    return _table(
        (name, "scenes", *_TITLES.values()),
        (
            (group, row["scenes"], *(_shown(measure, row[measure]) for measure in _TITLES))
            for group, row in rows.items()
        ),
    )


def _shown(measure: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if measure in _SHARES else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
