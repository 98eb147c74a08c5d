"""A stream of jobs with many sets of LoRAs, through the ledger and the worker's loop as they are."""

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from benchmarks import report
from benchmarks.request import make_request
from benchmarks.timing import Spread
from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name
from darkroom.edit import LoraRef
from darkroom.engine.engine import Engine
from darkroom.fetch.guard import Fetcher
from darkroom.job import Job, Stage, State
from darkroom.ledger.contract import Submission
from darkroom.ledger.scheduler import AFFINITY, Affinity
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.lora.convert import AdapterFile
from darkroom.settings import Settings
from darkroom.worker.loop import Worker
from darkroom.worker.messages import Drain, Message, Released, to_line
from darkroom.worker.orders import Orders

STEPS = 4
"""Without guidance: the least that is asked for, so that merging weighs most."""
KEYS = 4
IN_ORDER = Affinity(slack=0, most_overtaken=0)
WAYS = {"with affinity": AFFINITY, "as they come": IN_ORDER, "under one set": IN_ORDER}
ONE = "under one set"

Sets = Sequence[Sequence[AdapterFile]]


def measure(checkpoint: Path, sets: Sets, jobs: int) -> dict[str, Any]:
    """The same jobs, all queued at the start, each way by an engine of its own. sets: drawn from by Zipf's law."""
    weights = [1 / rank for rank in range(1, len(sets) + 1)]
    drawn = random.Random(0).choices(sets, weights, k=jobs)  # noqa: S311
    ways = {name: _run(checkpoint, [sets[0]] * jobs if name == ONE else drawn, WAYS[name]) for name in WAYS}
    return {
        "jobs": jobs,
        "steps": STEPS,
        "keys": KEYS,
        "sets": len(sets),
        "drawn": len({id(each) for each in drawn}),
        "ways": ways,
        "longer": {name: round(way["took_s"] / ways[ONE]["took_s"] - 1, 4) for name, way in ways.items()},
    }


def tables(stream: Mapping[str, Any]) -> Iterator[str]:
    ways = stream["ways"]
    yield (
        f"{stream['jobs']} jobs of {stream['steps']} steps without guidance, by {stream['keys']} keys, all queued at "
        f"the start; {stream['sets']} sets drawn by Zipf's law, of which {stream['drawn']} came up. Through the ledger "
        "and the worker's loop; the next job is prepared, and its set merged, while one is made."
    )
    yield report._table(
        ["jobs", "against one set", "a minute", "processor time", "switches", "merging, in all", "one job"],
        [
            [
                name,
                "" if name == ONE else f"**{stream['longer'][name]:+.1%}**",
                f"{60 * stream['jobs'] / way['took_s']:.1f}",
                f"{way['cpu_s']:.1f} s",
                way["switches"],
                f"{way['merging_s']:.2f} s",
                report._seconds(way["making"]),
            ]
            for name, way in ways.items()
        ],
    )


def _run(checkpoint: Path, sets: Sets, affinity: Affinity) -> dict[str, Any]:
    engine = Engine.load(checkpoint, device="cpu")
    engine.warm()
    with tempfile.TemporaryDirectory() as folder, Line(Path(folder), sets, affinity) as line:
        cpu_s = time.process_time()
        took_s = line.work(engine)
        cpu_s = time.process_time() - cpu_s
        jobs = line.made()
    names = [job.edit.lora_set for job in jobs]
    return {
        "took_s": round(took_s, 3),
        "cpu_s": round(cpu_s, 3),
        "switches": sum(one != other for one, other in pairwise(names)),
        "merging_s": round(sum(job.result.timings_s[Stage.MERGE] for job in jobs if job.result), 4),
        "making": Spread.of([job.ended_at - job.started_at for job in jobs if job.ended_at and job.started_at]).row(),
    }


@dataclass(frozen=True)
class AtHand:
    """Adapters that are all here, in their canonical form, by their digests."""

    files: Mapping[str, AdapterFile]

    def is_here(self, _ref: LoraRef) -> bool:
        return True

    async def bring(self, ref: LoraRef) -> AdapterFile:
        return self.files[ref.digest or ""]


class Line:
    """A ledger in which jobs with these sets are queued, in turn by as many keys as there are."""

    def __init__(self, folder: Path, sets: Sets, affinity: Affinity) -> None:
        self._settings = Settings(data=folder)
        self._ledger = SqliteLedger(folder / "ledger.db", lease_s=30, retention_s=3600, affinity=affinity)
        self._blobs = Folder(folder / "blobs")
        self._adapters = AtHand({file.digest: file for chosen in sets for file in chosen})
        keys = [self._ledger.create_key(name=f"{key}", digest=f"{key}", granted_micro=0) for key in range(KEYS)]
        self._ids = [f"job{number}" for number in range(len(sets))]
        for number, chosen in enumerate(sets):
            self._submit(number, keys[number % KEYS].id, chosen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    def work(self, engine: Engine) -> float:
        """Seconds until one worker has made all jobs."""
        lines: SimpleQueue[bytes | None] = SimpleQueue()
        orders, left, ended_at = Orders(), len(self._ids), 0.0

        def tell(message: Message) -> None:
            nonlocal left, ended_at
            if isinstance(message, Released):
                left, ended_at = left - 1, time.perf_counter()
                if not left:
                    lines.put(to_line(Drain(grace_s=60)))

        listener = threading.Thread(target=orders.listen, args=(iter(lines.get, None),))
        listener.start()
        worker = Worker(
            name="worker",
            ledger=self._ledger,
            blobs=self._blobs,
            fetcher=Fetcher(allow=(), max_bytes=1),
            adapters=self._adapters,
            engine=engine,
            orders=orders,
            tell=tell,
            settings=self._settings,
        )
        started_at = time.perf_counter()
        try:
            worker.run()
        finally:
            lines.put(None)
            listener.join()
        return ended_at - started_at

    def made(self) -> list[Job]:
        """In the order they were made. Raises RuntimeError where one was not."""
        jobs = [self._ledger.job(job_id) for job_id in self._ids]
        for job in jobs:
            if job.state != State.COMPLETED:
                raise RuntimeError(f"{job.id} is {job.state}: {job.failure}")
        return sorted(jobs, key=lambda job: job.started_at or 0)

    def _submit(self, number: int, key_id: str, chosen: Sequence[AdapterFile]) -> None:
        request, job_id = make_request(number, steps=STEPS), self._ids[number]
        file = BytesIO()
        request.pictures[0].save(file, "PNG", compress_level=1)
        blob = input_name(job_id, "image_1")
        self._blobs.put(blob, file.getvalue())
        loras = [LoraRef(field="lora", name=each.digest, digest=each.digest, strength=each.strength) for each in chosen]
        pictures = (replace(request.edit.pictures[0], blob=blob),)
        edit = replace(request.edit, pictures=pictures, true_cfg_scale=1.0, loras=tuple(loras))
        self._ledger.accept(Submission(id=job_id, key_id=key_id, slug="bench", edit=edit, price_micro=0))
