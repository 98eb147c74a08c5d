"""Who goes next of those that wait: plain code, which the ledger's claim and the simulation in the tests both run.

Keys share fairly by the jobs' fair tags. Within that, a worker prefers jobs whose LoRAs it has merged already.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

WINDOW = 64
"""How many jobs, from the first in fair order, are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Affinity:
    """How far jobs may go before their turn. slack: how far behind the first in fair order, in lengths of that one.
    most_overtaken: how often a job is overtaken at most."""

    slack: float
    most_overtaken: int


AFFINITY = Affinity(slack=5, most_overtaken=24)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A queued job. lora_set: as `Edit.lora_set`; None: not known. overtaken: how often one behind it was taken."""

    id: str
    fair_tag: float
    work: float
    lora_set: str | None
    overtaken: int


def choose(waiting: Sequence[Waiting], held: Collection[str], affinity: Affinity) -> int:
    """The place of the job to take: the first whose LoRA set is held, if it stands close enough; else the first of all.

    waiting: at least one, in fair order. held: the sets that take the worker no merging. A job that has been overtaken
    as often as may be is passed by none, so those before the place returned are overtaken once more, and never too
    often.
    """
    first = waiting[0]
    last_tag = first.fair_tag + affinity.slack * first.work
    for place, job in enumerate(waiting):
        if job.fair_tag > last_tag:
            break
        # Without LoRAs a job takes no merging whenever it goes: nothing is saved by taking it early.
        if job.lora_set in held and (job.lora_set or not place):
            return place
        if job.overtaken >= affinity.most_overtaken:
            break
    return 0
