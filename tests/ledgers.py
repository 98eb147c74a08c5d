"""What the ledger's tests, of the contract and of each database, ask it with."""

import itertools
from collections.abc import Sequence

from darkroom.edit import Edit, ImageFormat, LoraRef, Output, PictureRef
from darkroom.job import Failure, Progress, Result, Stage
from darkroom.ledger.contract import Idempotency, Key, Ledger, Submission

START = 1_800_000_000.0
CRASH = Failure(code="engine_failed", message="The engine stopped")
PROGRESS = Progress(stage=Stage.DENOISE, step=3, steps=8)
RESULT = Result(
    blob="results/2027011508/job/1.webp",
    content_type="image/webp",
    size_bytes=1234,
    width_px=1024,
    height_px=768,
    timings_s={"encode": 0.25, "denoise": 1.5},
    warnings=("image_1 was converted to sRGB",),
)

_numbers = itertools.count(1)


class SettableClock:
    """A ledger's clock, in the hands of a test."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make_edit(*, steps: int = 8, loras: Sequence[str] = ()) -> Edit:
    """`work` is 2 a step. loras: their digests."""
    return Edit(
        prompt="Make the sofa green",
        negative_prompt=None,
        pictures=(PictureRef(field="image_1", blob="inputs/2027011508/job/image_1"),),
        aspect_ratio=(4, 3),
        seed=7,
        num_inference_steps=steps,
        true_cfg_scale=1.0,
        output=Output(format=ImageFormat.WEBP, quality=90),
        loras=tuple(LoraRef(field="lora", name=digest, digest=digest, strength=1.0) for digest in loras),
    )


def set_of(*loras: str) -> str:
    """The name of the set that `ask` gives a job with these digests."""
    return make_edit(loras=loras).lora_set


def make_key(ledger: Ledger, name: str = "studio", **settings) -> Key:
    settings = {"granted_micro": 1_000_000, **settings}
    return ledger.create_key(name=name, digest=f"digest of {name} {next(_numbers)}", **settings)


def key_named(ledger: Ledger, name: str) -> Key:
    (key,) = [key for key in list(ledger.keys()) if key.name == name]
    return key


def ask(
    key: Key,
    *,
    job_id: str | None = None,
    price_micro: int = 1000,
    steps: int = 8,
    loras: Sequence[str] = (),
    resolve_s: float | None = None,
    idempotency: tuple[str, str] | None = None,
) -> Submission:
    """idempotency: name and digest."""
    return Submission(
        id=job_id or f"job-{next(_numbers)}",
        key_id=key.id,
        slug="qwen-image-edit-plus",
        edit=make_edit(steps=steps, loras=loras),
        price_micro=price_micro,
        idempotency=Idempotency(name=idempotency[0], digest=idempotency[1]) if idempotency else None,
        resolve_s=resolve_s,
    )


def snapshot(ledger: Ledger, *job_ids: str) -> list[object]:
    """All that a refused call must leave as it was."""
    jobs = [ledger.job(job_id) for job_id in job_ids]
    return [ledger.keys(), ledger.counts(), jobs, [ledger.events(job_id) for job_id in job_ids]]


def kinds(ledger: Ledger, job_id: str) -> list[str]:
    return [event.kind for event in ledger.events(job_id)]


def running(ledger, key, **asked):
    """A job just claimed by worker "w1", and its lease."""
    ledger.accept(ask(key, **asked))
    return ledger.claim("w1")
