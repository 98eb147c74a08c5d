"""What sets of LoRAs cost, ours and PEFT's, in one run on this machine: `make bench`.

Writes loras.json and loras.md, tables of it, into benchmarks/results.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, report, stream
from benchmarks.checkpoint import sized_checkpoint
from benchmarks.elsewhere import begin_as_ours
from benchmarks.run import CHECKPOINT, _describe
from benchmarks.timing import Spread, in_turns, seconds
from darkroom.engine.adapter import Adapter, load_adapter
from darkroom.engine.crew import Crew
from darkroom.engine.engine import Engine
from darkroom.engine.held import values_of
from darkroom.engine.linear import PACK_FROM_STEPS
from darkroom.engine.overlay import Overlay
from darkroom.engine.transformer import Transformer
from darkroom.lora.convert import AdapterFile, convert, strengths_of
from darkroom.lora.modules import Modules
from loras import LAYOUTS, TARGETS, save
from parity.oracle import Reference

RANK = 16
LAYERS = tuple(name for name in TARGETS if not name.endswith("mod.1"))
"""Of a block, that a LoRA changes: attention and MLP of both streams."""
FILES = 6
SETS = tuple(combinations(range(FILES), 3))
"""Twenty, by the files' numbers."""
TWO = (SETS[0], SETS[-1])
"""That are switched between: they have no file in common."""
PLENTY = 2**40

Times = dict[str, float]
"""Seconds by what was timed; `total` among them."""

READ, HELD = "PEFT, files read again", "PEFT, adapters in memory"
COMPARED = (
    ("a first set: files read, then merged", "ours, first", "PEFT, first"),
    ("switch: files read again, then merged", "ours, files read again", READ),
    ("switch: adapters in memory, merged anew", "ours, adapters in memory", READ),
    ("switch: adapters in memory, merged anew", "ours, adapters in memory", HELD),
    ("switch: adapters in memory, merged anew and packed", "ours, adapters in memory, packed", READ),
    ("switch: adapters in memory, merged anew and packed", "ours, adapters in memory, packed", HELD),
    ("switch: set kept merged", "ours, kept merged", READ),
    ("switch: set kept merged", "ours, kept merged", HELD),
)
"""What ours does, and the two calls."""

HOW_PEFT = """PEFT's time over ours, by round. PEFT: `load_lora_weights`, `set_adapters` and `fuse_lora`; a switch
begins with `unfuse_lora`, and with `delete_adapters` where files are read again."""
HOW_PACKED = f"""For an edit of {PACK_FROM_STEPS} steps or more, matrices are packed once they are merged: that takes
as long as about four steps with packed ones save. For fewer they are left as they are."""
HOW_IN_TURN = "A matrix after the other: by all threads, in place of a thread for each (`engine/crew.py`)."
HOW_READ = """Ours reads canonical files, which are mapped when loaded and whose pages are touched when they are merged.
Converting a file into one is done once, when the LoRA is fetched."""


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """source: as its trainer wrote it, which PEFT reads. canonical: what was made of it when it was fetched."""

    source: Path
    canonical: AdapterFile


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loras", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of switches (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=100, help="of the stream (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help=f"another one than {CHECKPOINT}, which is made if absent")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="where results are written (default: %(default)s)"
    )
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", "Already found a `peft_config`")  # said at every adapter after the first
    checkpoint = asked.checkpoint or sized_checkpoint(CHECKPOINT)
    found = measure(checkpoint, rounds=asked.rounds, jobs=asked.jobs)
    asked.out.mkdir(parents=True, exist_ok=True)
    text = write(found)
    (asked.out / "loras.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (asked.out / "loras.md").write_text(text, encoding="utf-8")
    print(text)


def measure(checkpoint: Path, *, rounds: int, jobs: int) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": machine.describe(), "checkpoint": _describe(checkpoint)}
    with tempfile.TemporaryDirectory() as folder:
        files, converting_s = make_files(checkpoint, Path(folder))
        engine = Engine.load(checkpoint, device="cpu")
        found |= {
            "dtype": engine.dtype,
            "rank": RANK,
            "file_bytes": files[0].canonical.path.stat().st_size,
            "converting_s": Spread.of(converting_s).row(),
            **_switches(engine, checkpoint, files, rounds),
            "stream": stream.measure(checkpoint, [[files[number].canonical for number in each] for each in SETS], jobs),
        }
    return found | {"took_s": round(time.perf_counter() - started)}


def make_files(checkpoint: Path, folder: Path) -> tuple[list[LoraFile], list[float]]:
    """In bfloat16, as most are; and the seconds that converting each took."""
    config = json.loads((checkpoint / "transformer" / "config.json").read_text())
    modules, generator = Modules.read(config), torch.Generator().manual_seed(0)
    names = [f"transformer_blocks.{block}.{layer}" for block in range(config["num_layers"]) for layer in LAYERS]
    files, converting_s = [], []
    for number in range(FILES):
        pairs = {}
        for name in names:
            rows, columns = modules.shapes[f"{name}.weight"]
            a = torch.randn(RANK, columns, generator=generator) / columns**0.5
            b = 0.1 * torch.randn(rows, RANK, generator=generator) / RANK**0.5
            pairs[name] = a.bfloat16(), b.bfloat16()
        source = save(folder / f"{number}.safetensors", LAYOUTS["diffusers"].write(pairs))
        canonical = folder / f"{number}.canonical"
        converting_s.append(seconds(partial(convert, source, canonical, modules)))
        # Not the number alone: diffusers warns of keys that contain an adapter's name, and blocks have numbers too.
        file = AdapterFile(path=canonical, digest=f"lora_{number}", strength=1.0)
        files.append(LoraFile(source=source, canonical=file))
    return files, converting_s


class Ours:
    """Each call ends with the transformer as it was loaded."""

    def __init__(self, transformer: Transformer, files: Sequence[LoraFile]) -> None:
        self._transformer = transformer
        self._sets = [strengths_of(files[number].canonical for number in chosen) for chosen in TWO]
        self._paths = {file.canonical.digest: file.canonical.path for file in files}
        self._loaded = {digest: load_adapter(path) for digest, path in self._paths.items()}
        self._keeping = Overlay(transformer, max_bytes=PLENTY)
        self._merging = Overlay(transformer, max_bytes=0)
        self._merging.use(self._sets[0], self._loaded.__getitem__)
        self._places = list(self._merging._used)
        self._merging.use((), self._loaded.__getitem__)
        self._in_turn = Overlay(transformer, max_bytes=0)
        self._in_turn._crew = Crew(1)

    def first(self, number: int) -> Times:
        """The set's files read, then merged where nothing was merged before."""
        overlay, strengths = Overlay(self._transformer, max_bytes=0), self._sets[number % 2]
        started = time.perf_counter()
        adapters = {digest: self._read(digest) for digest, _ in strengths}
        loaded = time.perf_counter()
        overlay.use(strengths, adapters.__getitem__)
        merged = time.perf_counter()
        overlay.use((), adapters.__getitem__)
        return {"load": loaded - started, "merge": merged - loaded, "total": merged - started}

    def files_again(self, number: int) -> Times:
        return self._switch(self._merging, self._read, number)

    def merged_anew(self, number: int) -> Times:
        return self._switch(self._merging, self._loaded.__getitem__, number)

    def merged_and_packed(self, number: int) -> Times:
        return self._switch(self._merging, self._loaded.__getitem__, number, steps=PACK_FROM_STEPS)

    def merged_in_turn(self, number: int) -> Times:
        return self._switch(self._in_turn, self._loaded.__getitem__, number)

    def kept(self, number: int) -> Times:
        return self._switch(self._keeping, self._loaded.__getitem__, number)

    def touched(self) -> list[Tensor]:
        """The weights that a set changes, as they were loaded."""
        return [values_of(*place) for place in self._places]

    def _read(self, digest: str) -> Adapter:
        return load_adapter(self._paths[digest])

    def _switch(self, overlay: Overlay, load: Callable[[str], Adapter], number: int, *, steps: int = 1) -> Times:
        before, after = self._sets[number % 2], self._sets[1 - number % 2]
        overlay.use(before, load, steps=steps)
        taken = seconds(partial(overlay.use, after, load, steps=steps))
        overlay.use((), load)
        return {"total": taken}


class Peft:
    """PEFT on the transformer of diffusers, through its pipeline. Each call ends with no adapter there."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype, files: Sequence[LoraFile]) -> None:
        self.pipeline = Reference(checkpoint, dtype=dtype).pipeline
        self._sources = {file.canonical.digest: file.source for file in files}
        self._sets = [[files[number].canonical.digest for number in chosen] for chosen in TWO]

    def first(self, number: int) -> Times:
        names = self._sets[number % 2]
        load_s = seconds(partial(self.load, names))
        merge_s = seconds(partial(self.fuse, names))
        self.clear()
        return {"load": load_s, "merge": merge_s, "total": load_s + merge_s}

    def files_again(self, number: int) -> Times:
        before, after = self._sets[number % 2], self._sets[1 - number % 2]
        self.load(before)
        self.fuse(before)

        def switch() -> None:
            self.pipeline.unfuse_lora()
            self.pipeline.delete_adapters(before)
            self.load(after)
            self.fuse(after)

        taken = seconds(switch)
        self.clear()
        return {"total": taken}

    def in_memory(self, number: int) -> Times:
        """Both sets' adapters are loaded before."""
        before, after = self._sets[number % 2], self._sets[1 - number % 2]
        self.load([*before, *after])
        self.fuse(before)

        def switch() -> None:
            self.pipeline.unfuse_lora()
            self.fuse(after)

        taken = seconds(switch)
        self.clear()
        return {"total": taken}

    def load(self, names: Sequence[str]) -> None:
        for name in names:
            source = self._sources[name]
            self.pipeline.load_lora_weights(source.parent, weight_name=source.name, adapter_name=name)

    def fuse(self, names: Sequence[str]) -> None:
        self.pipeline.set_adapters(list(names))
        self.pipeline.fuse_lora()

    def clear(self) -> None:
        self.pipeline.unfuse_lora()
        self.pipeline.unload_lora_weights()


def _switches(engine: Engine, checkpoint: Path, files: Sequence[LoraFile], rounds: int) -> dict[str, Any]:
    ours = Ours(engine._models.transformer, files)
    peft = Peft(checkpoint, getattr(torch, engine.dtype), files)
    sources = ours.touched()
    targets = [torch.empty_like(source) for source in sources]

    def copy_all() -> None:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    taken = in_turns(
        {
            "copy": lambda _: {"total": seconds(copy_all)},
            "ours, first": ours.first,
            "ours, files read again": ours.files_again,
            "ours, adapters in memory": ours.merged_anew,
            "ours, adapters in memory, a matrix after the other": ours.merged_in_turn,
            "ours, adapters in memory, packed": ours.merged_and_packed,
            "ours, kept merged": ours.kept,
            "PEFT, first": peft.first,
            READ: peft.files_again,
            HELD: peft.in_memory,
        },
        rounds=rounds,
        about="sets of three",
    )
    return {
        "seconds": {name: _by_part(times) for name, times in taken.items()},
        "against_peft": [
            {"what": what, "peft": theirs, "ours": name, "ratio": _ratio(taken[theirs], taken[name])}
            for what, name, theirs in COMPARED
        ],
        "copied_bytes": sum(source.nbytes for source in sources),
        "against_copy": {name: _ratio(taken[name], taken["copy"]) for name in taken if name != "copy"},
    }


def _by_part(times: Sequence[Times]) -> dict[str, Any]:
    """Six digits: a kept set takes well under a millisecond."""
    return {
        part: {name: round(value, 6) for name, value in vars(Spread.of([each[part] for each in times])).items()}
        for part in times[0]
    }


def _ratio(above: Sequence[Times], below: Sequence[Times]) -> dict[str, float]:
    """Round by round."""
    return Spread.of([one["total"] / other["total"] for one, other in zip(above, below, strict=True)]).row()


def write(found: Mapping[str, Any]) -> str:
    files = (
        f"Sets of three LoRAs of rank {found['rank']} on attention and MLP of both streams, {found['dtype']}, "
        f"{found['file_bytes'] / 1e6:.1f} MB a file, all in the page cache."
    )
    parts = [
        report._setting(found),
        files,
        "### Against PEFT",
        *_against_peft(found),
        "### Against copying the weights",
        *_against_copy(found),
        "### A stream of jobs",
        *stream.tables(found["stream"]),
    ]
    return "\n\n".join(parts) + "\n"


def _against_peft(found: Mapping[str, Any]) -> Iterator[str]:
    taken = found["seconds"]
    yield HOW_PEFT
    yield report._table(
        ["ours", "against", "ratio", "ours takes", "PEFT takes"],
        [
            [
                row["what"],
                row["peft"],
                f"**{_times(row['ratio'])}**",
                _ms(taken[row["ours"]]["total"]),
                _ms(taken[row["peft"]]["total"]),
            ]
            for row in found["against_peft"]
        ],
    )
    yield HOW_PACKED
    rows = [[name, _ms(taken[name]["load"]), _ms(taken[name]["merge"])] for name in ("ours, first", "PEFT, first")]
    yield report._table(["", "load", "merge"], rows)
    yield f"{HOW_READ} Here it took {_ms(found['converting_s'])} a file."


def _against_copy(found: Mapping[str, Any]) -> Iterator[str]:
    taken = found["seconds"]
    yield (
        "To merge a set anew, the pristine weights that it changes must be read, and as much written. The floor is "
        f"`copy_` of just that, {found['copied_bytes'] / 1e6:.0f} MB, into memory that is there already: "
        f"{_ms(taken['copy']['total'])}. For a set kept merged nothing has to move."
    )
    yield report._table(
        ["", "ratio", "takes"],
        [[name, f"**{_times(ratio)}**", _ms(taken[name]["total"])] for name, ratio in found["against_copy"].items()],
    )
    yield HOW_IN_TURN


def _times(spread: Mapping[str, float]) -> str:
    digits = 0 if spread["median"] >= 10 else 2
    return f"{spread['median']:.{digits}f}× ({spread['least']:.{digits}f}–{spread['most']:.{digits}f})"


def _ms(spread: Mapping[str, float]) -> str:
    value = 1000 * spread["median"]
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


if __name__ == "__main__":
    begin_as_ours("benchmarks.loras")
    main()
