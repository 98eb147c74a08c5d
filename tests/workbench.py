"""A worker with everything it needs: a real ledger and folder, and an engine that inverts the first picture."""

import itertools
import threading
import time
from collections import defaultdict
from io import BytesIO
from queue import SimpleQueue
from types import SimpleNamespace

from PIL import Image, ImageOps

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name
from darkroom.edit import Edit, ImageFormat, Output, PictureRef, add_strengths, set_name
from darkroom.fetch.guard import Fetcher
from darkroom.job import Progress, Stage, State
from darkroom.ledger.contract import Submission
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.lora.adapters import Adapters
from darkroom.lora.base import Base
from darkroom.settings import Settings
from darkroom.stores import open_loras
from darkroom.worker.loop import Worker
from darkroom.worker.messages import Drain, Released, to_line
from darkroom.worker.orders import Orders

STEPS = 3
PATIENCE_S = 20


class Inverter:
    """For a test to meddle: `at_prepare` is called with a job's id before it is prepared, `at_merged_ahead` when its
    set was to be merged ahead, `at_step` after each step of the job `making`. prepared, made: the jobs' ids, in order.
    merges: the LoRA sets merged, by their names; the last `sets_kept` of them stay, and where that is more than one
    there is room to merge ahead."""

    def __init__(self):
        self.at_prepare = lambda job_id: None
        self.at_merged_ahead = lambda: None
        self.at_step = lambda step: None
        self.making = None
        self.prepared = []
        self.made = []
        self.merges = []
        self.merged = frozenset({""})
        self.sets_kept = 1

    def prepare(self, edit, pictures):
        self.prepared.append(edit.prompt)
        self.at_prepare(edit.prompt)
        return pictures[0]

    def merge_ahead(self, edit, loras):
        if self.sets_kept > 1:
            self._merge(loras)
        self.at_merged_ahead()

    def _merge(self, loras):
        name = set_name(add_strengths((lora.digest, lora.strength) for lora in loras))
        if name not in self.merged:
            self.merges.append(name)
            self.merged = frozenset({"", *self.merges[-self.sets_kept :]})

    def make(self, edit, picture, observe, loras):
        self.making = edit.prompt
        if loras:
            observe(Progress(stage=Stage.MERGE, step=0, steps=STEPS))
            self._merge(loras)
        for stage in (Stage.ENCODE, Stage.DENOISE):
            observe(Progress(stage=stage, step=0, steps=STEPS))
        for step in range(1, STEPS + 1):
            self.at_step(step)
            observe(Progress(stage=Stage.DENOISE, step=step, steps=STEPS))
        self.made.append(edit.prompt)
        return SimpleNamespace(image=ImageOps.invert(picture), timings_s={"denoise": 0.5})


class WatchedFolder(Folder):
    """`at_put` is called with the name before each blob is put."""

    def put(self, name, data):
        self.at_put(name)
        super().put(name, data)

    def at_put(self, name):
        pass


class Marks:
    """Points that a test's threads reach, and wait for."""

    def __init__(self):
        self._events = defaultdict(threading.Event)

    def reach(self, point):
        self._events[point].set()

    def reached(self, point):
        return self._events[point].is_set()

    def wait(self, point):
        assert self._events[point].wait(PATIENCE_S), f"{point} was never reached"


class Bench:
    """Submits jobs to a worker and runs it; a job's prompt is its id. `told` is all that the worker said; `at_told` is
    called with each message."""

    def __init__(self, folder):
        self.settings = Settings(data=folder, max_picture_bytes=10**6, max_picture_px=10**6, lease_s=0.3)
        self.ledger = SqliteLedger(folder / "ledger.db", lease_s=30, retention_s=60)
        self.blobs = WatchedFolder(folder / "blobs")
        self.engine = Inverter()
        self.orders = Orders()
        self.fetcher = Fetcher(allow=(), max_bytes=10**6)
        self.adapters = Adapters(open_loras(self.settings), Base(None))
        self.told = []
        self.at_told = lambda message: None
        self.key = self.ledger.create_key(name="k", digest="d", granted_micro=1000)
        self.ids = (f"job{number}" for number in itertools.count())
        self._lines = SimpleQueue()
        self._listener = threading.Thread(target=self.orders.listen, args=(iter(self._lines.get, None),))
        self._listener.start()

    def close(self):
        self._lines.put(None)
        self._listener.join()
        self.ledger.close()

    def submit(self, picture=None, **changes):
        job_id = next(self.ids)
        ref = PictureRef(field="image", blob=input_name(job_id, "image"))
        if "pictures" not in changes:
            self.blobs.put(ref.blob, picture or png())
        edit = Edit(
            prompt=job_id,
            negative_prompt=None,
            pictures=changes.pop("pictures", (ref,)),
            aspect_ratio=None,
            seed=1,
            num_inference_steps=STEPS,
            true_cfg_scale=1.0,
            output=Output(format=ImageFormat.PNG, quality=90),
            loras=changes.pop("loras", ()),
            checkpoint=changes.pop("checkpoint", None),
        )
        self.ledger.accept(Submission(id=job_id, key_id=self.key.id, slug="s", edit=edit, price_micro=10))
        return job_id

    def tell(self, message):
        self.told.append(message)
        self.at_told(message)
        if isinstance(message, Released) and not self.ledger.counts()[State.QUEUED]:
            self.drain(grace_s=60)

    def drain(self, *, grace_s):
        """Returns when the worker has been told."""
        self._lines.put(to_line(Drain(grace_s=grace_s)))
        while not (self.orders.draining if grace_s else self.orders.overdue):
            time.sleep(0.001)

    def run(self):
        """Until the queue is empty."""
        worker = Worker(
            name="w",
            ledger=self.ledger,
            blobs=self.blobs,
            fetcher=self.fetcher,
            adapters=self.adapters,
            engine=self.engine,
            orders=self.orders,
            tell=self.tell,
            settings=self.settings,
        )
        worker.run()

    def states(self, *job_ids):
        return [self.ledger.job(job_id).state for job_id in job_ids]

    def pixels(self, job_id):
        """Of the job's result."""
        return Image.open(BytesIO(self.blobs.get(self.ledger.job(job_id).result.blob))).tobytes()


def png(size=(8, 6)) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return file.getvalue()


def inverted(file: bytes) -> bytes:
    """The pixels that the engine makes of a picture."""
    return ImageOps.invert(Image.open(BytesIO(file))).tobytes()
