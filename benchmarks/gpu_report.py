"""What `benchmarks.gpu` found, as a page: measured times beside those to be reached."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu_edits import MANY_STEPS, row_name

TARGETS_S: Mapping[tuple[int, int, str], float] = {
    (MANY_STEPS, 1, "exact"): 21.5,
    (MANY_STEPS, 1, "fast"): 15.5,
    (MANY_STEPS, 2, "exact"): 37.0,
    (MANY_STEPS, 2, "fast"): 28.5,
    (8, 1, "exact"): 2.3,
    (8, 1, "fast"): 1.7,
    (8, 2, "exact"): 3.8,
    (8, 2, "fast"): 3.0,
    (4, 1, "exact"): 1.2,
    (4, 1, "fast"): 0.95,
    (4, 2, "exact"): 2.0,
    (4, 2, "fast"): 1.6,
}
"""By steps, pictures and tier: on one H200 at 1024², from request to encoded image."""
COLD_START_S = 12.0
ENCODE_S = 0.06


def page(report: Mapping[str, Any]) -> str:
    sections = report["sections"]
    lines = ["# One GPU", "", *_about(report), "", *_against(_found(sections, "reference_speed")), ""]
    lines += [*_edits(sections), "", *_ready(sections), ""]
    for name, section in sections.items():
        if name not in ("environment", "reference_speed", "exact", "fast", "whole", "ready"):
            lines += [f"## {name} ({section['seconds']:.0f} s)", "", *_values(section["found"]), ""]
        else:
            lines += [*_failed(section["found"]), ""]
        if "error" in section:
            lines += [f"**{name} ended early**: {section['error'].strip().splitlines()[-1]}", ""]
    return "\n".join(lines) + "\n"


def _failed(found: Mapping[str, Any]) -> Iterator[str]:
    """The rows that have an error in place of figures."""
    for name, row in found.items():
        if isinstance(row, Mapping) and "error" in row:
            yield f"- **{name} failed**: {row['error']}"


def _about(report: Mapping[str, Any]) -> Iterator[str]:
    found = _found(report["sections"], "environment")
    kind = "toy sizes: no figure here means anything" if report["toy"] else "random weights of the published shapes"
    yield f"{report['date']}, commit {found.get('commit', 'unknown')}, {report['seconds']:.0f} s in all; {kind}."
    yield "; ".join(f"{name} {value}" for name, value in found.items() if name != "commit") + "."


def _against(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## A guided step against diffusers' transformer", "")
    yield from ("| diffusers | theirs to ours | ours, s | theirs, s |", "|---|---|---|---|")
    for name, row in found.items():
        if "ratio" in row:
            yield f"| {name} | **{row['ratio']:.2f}×** | {row['ours_s']:.3f} | {row['theirs_s']:.3f} |"


def _edits(sections: Mapping[str, Any]) -> Iterator[str]:
    found = [row for section in ("exact", "fast", "whole") for row in _found(sections, section).items()]
    rows = {name: row for name, row in found if isinstance(row, Mapping) and "total" in row}
    yield from ("## Edits, request to encoded image", "")
    yield "| | measured, s | to reach, s | encode | denoise | decode | prepare, read, PNG | peak, GB |"
    yield "|---|---|---|---|---|---|---|---|"
    for pictures in (1, 2, 3):
        for steps in (MANY_STEPS, 8, 4):
            for tier in ("exact", "fast"):
                name = row_name(steps, pictures, tier)
                if row := rows.get(name):
                    target = TARGETS_S.get((steps, pictures, tier))
                    yield _edit(name, row, target)
    yield from ("", f"Text and image encoding is to take at most {ENCODE_S} s.")


def _edit(name: str, row: Mapping[str, float], target: float | None) -> str:
    about = " (extrapolated)" if row.get("extrapolated") else ""
    reached = "–" if target is None else f"{target} {'✓' if row['total'] <= target else '✗'}"
    rest = row["prepare"] + row["read"] + row["png"]
    stages = " | ".join(f"{row[stage]:.3f}" for stage in ("encode", "denoise", "decode"))
    return f"| {name}{about} | {row['total']:.2f} | {reached} | {stages} | {rest:.3f} | {row['peak_gb']:.1f} |"


def _ready(sections: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Cold start", "")
    found, first = _found(sections, "ready"), _found(sections, "load").get("warm_s")
    if load := found.get("load"):
        total = load["start_and_imports_s"] + load["load_s"] + (first or 0)
        yield f"{total:.1f} s, to reach {COLD_START_S} s from a warm page cache; derived from what follows."
        yield ""
    yield from _values({**found, "first edit, s": first})


def _values(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        yield f"- {name}: {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _found(sections: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = sections.get(name, {}).get("found", {})
    return found
