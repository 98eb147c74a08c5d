"""The progress bar of an edit, on standard error; nothing where that is no terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from darkroom import job
from darkroom.job import Stage, State

DOING = {
    Stage.FETCH: "fetching the pictures",
    Stage.LORAS: "fetching the LoRAs",
    Stage.PREPARE: "preparing",
    Stage.MERGE: "bringing in the LoRAs",
    Stage.ENCODE: "reading pictures and prompt",
    Stage.DENOISE: "denoising",
    Stage.DECODE: "decoding",
    Stage.WRITE: "writing",
}


class Bar:
    """A line that says what the job is at, with a bar over its denoising steps."""

    def __init__(self, *, waiting: str) -> None:
        """waiting: what to say until the job runs."""
        self._waiting = waiting
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(waiting, total=None)

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # One that never ran would still end with an empty line.
        if self._progress.console.is_terminal:
            self._progress.stop()

    def observe(self, state: State, at: job.Progress | None) -> None:
        """Show where the job is. at: None while it waits, and from a server that doesn't say."""
        if at is None:
            doing = self._waiting if state == State.QUEUED else "working"
            self._progress.update(self._task, description=doing, completed=0, total=None)
        else:
            self._progress.update(self._task, description=DOING[at.stage], completed=at.step, total=at.steps)
