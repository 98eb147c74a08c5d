"""Puts a run's checkpoint into the package, and the run's log into the repository: `python -m training.ship OUT`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from darkroom.checkpoint.inspect import inspect
from darkroom.checkpoint.locate import NANO
from training.config import Config
from training.export import export
from training.fast_stage import FAST
from training.refine import REFINE, REFINED

MAX_BYTES: Final = 32 * 2**20
"""Of the checkpoint in all, which every clone of the repository and every wheel has."""
MAX_FILE_BYTES: Final = 16 * 2**20
LOGS: Final = Path(__file__).parent / "logs"
_STAGES: Final = ("vae", "joint", FAST, REFINE)
_KEPT: Final = ("log.jsonl", "curve.png")


def ship(config: Config, run: Path, *, to: Path = NANO, logs: Path = LOGS) -> list[str]:
    """run: a run's folder, finished or under way. What has been shipped, in words.

    Raises ValueError, and leaves what was there, if the checkpoint is too large or could not be served.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as work:
        made = Path(work) / to.name
        if (refined := run / REFINED).exists():
            shutil.copytree(refined, made)
        else:
            export(config, run, made)
        problems = [*inspect(made).problems, *oversized(made)]
        if problems:
            raise ValueError("; ".join(problems))
        shutil.rmtree(to, ignore_errors=True)
        made.rename(to)
    return [f"{to}: {_size_bytes(to):,} bytes", *_keep_logs(run, logs)]


def oversized(folder: Path) -> list[str]:
    """What is larger than may be, in words."""
    found = [
        f"{path.relative_to(folder)} has {path.stat().st_size:,} bytes; a file may have {MAX_FILE_BYTES:,}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES
    ]
    total_bytes = _size_bytes(folder)
    if total_bytes > MAX_BYTES:
        found.append(f"there are {total_bytes:,} bytes in all; there may be {MAX_BYTES:,}")
    return found


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _keep_logs(run: Path, logs: Path) -> list[str]:
    """Numbered after those of earlier runs, from which this one may have begun."""
    folder = logs / str(1 + sum(1 for _ in logs.glob("*")))
    kept = []
    for file in (run / stage / name for stage in _STAGES for name in _KEPT):
        if file.is_file():
            copy = folder / file.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            kept.append(str(copy))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.ship", description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="the run's folder")
    sys.stdout.write("\n".join(ship(Config(), parser.parse_args().out)) + "\n")


if __name__ == "__main__":
    main()
