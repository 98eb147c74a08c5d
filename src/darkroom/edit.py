"""An edit with nothing left open: what was asked for, after admission has settled every default.

The ledger keeps it as JSON beside the job, so a queued or retried job replays to the same picture.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Self

LORA_NAME: Final = r"[a-z0-9][a-z0-9_]{0,63}"
"""What a LoRA may go by: a regular expression for all of it."""


class ImageFormat(StrEnum):
    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        return f"image/{self.value}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRef:
    """Where an input picture is: in the blob store (`blob`, kept at admission) or at an address (`url`, fetched by the
    worker). Exactly one of the two is set; `field` is the parameter it came in, for error messages."""

    field: str
    blob: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if (self.blob is None) == (self.url is None):
            raise ValueError(f"{self.field}: a picture has either a blob or a url")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraRef:
    """A LoRA, held to one file since admission: by the SHA-256 of its bytes (`digest`), or, where nobody has read them
    all yet, by its host's word for this version (`validator`). url: where to fetch it, if it is not here; None for one
    that never came from anywhere. field: the parameter it came in; name: for people."""

    field: str
    name: str
    strength: float
    digest: str | None = None
    url: str | None = None
    validator: str | None = None

    def __post_init__(self) -> None:
        if self.digest is None and (self.url is None or self.validator is None):
            raise ValueError(f"{self.field}: a LoRA has a digest, or a url with a validator")

    @property
    def version(self) -> str:
        """Which file it is, as far as that is known."""
        return self.digest or f"{self.validator} {self.url}"


Strengths = tuple[tuple[str, float], ...]
"""A set of LoRAs: each file's digest, or version, with its strength, in the digests' order."""


def add_strengths(loras: Iterable[tuple[str, float]]) -> Strengths:
    """The set that these make up: a file that is there twice has both strengths, one without strength is not there."""
    given: dict[str, list[float]] = defaultdict(list)
    for digest, strength in loras:
        given[digest].append(strength)
    total = {digest: math.fsum(strengths) for digest, strengths in given.items()}
    return tuple(sorted((digest, strength) for digest, strength in total.items() if strength))


def set_name(strengths: Strengths) -> str:
    """Short, and the same for the same set; empty for the one without any."""
    return hashlib.sha256(json.dumps(strengths).encode()).hexdigest()[:32] if strengths else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How the result is written. quality: 1–100, for JPEG and WebP. base64: also answer inline."""

    format: ImageFormat
    quality: int
    base64: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """What the engine is to make.

    pictures: one to three, in the prompt's order. aspect_ratio: width and height, or None for the first picture's.
    true_cfg_scale: guidance is on above 1 and with a negative prompt, which a single space already is.
    loras: all applied at once, in any order. lightning: whether steps are spaced as for the LoRAs of that name, which
    make do with a few. checkpoint: whose edit it is to be, by its name (`locate.known_as`); None: any's.
    """

    prompt: str
    negative_prompt: str | None
    pictures: tuple[PictureRef, ...]
    aspect_ratio: tuple[int, int] | None
    seed: int
    num_inference_steps: int
    true_cfg_scale: float
    output: Output
    loras: tuple[LoraRef, ...] = ()
    lightning: bool = False
    checkpoint: str | None = None

    @property
    def guided(self) -> bool:
        """Whether each step takes two forward passes."""
        return self.true_cfg_scale > 1 and self.negative_prompt is not None

    @property
    def work(self) -> float:
        """Relative cost in transformer tokens × passes: the job's length for fair queueing."""
        return float(self.num_inference_steps * (1 + self.guided) * (1 + len(self.pictures)))

    @property
    def lora_set(self) -> str:
        """The name of its LoRAs' set: edits that have the same one are made with the same weights."""
        return set_name(add_strengths((lora.version, lora.strength) for lora in self.loras))

    def to_record(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Inverse of `to_record`, also after a trip through JSON."""
        output = record["output"]
        return cls(
            **{
                **record,
                "pictures": tuple(PictureRef(**picture) for picture in record["pictures"]),
                "aspect_ratio": tuple(record["aspect_ratio"]) if record["aspect_ratio"] else None,
                "loras": tuple(LoraRef(**lora) for lora in record.get("loras", ())),
                "output": Output(**{**output, "format": ImageFormat(output["format"])}),
            }
        )
