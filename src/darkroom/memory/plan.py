"""The memory plan: which part of a checkpoint lies where on a device. GB are 10⁹ bytes.

Memory decides where tensors lie, never what is computed: dtypes follow from the settings and from what the device can
multiply, so a worker with less memory makes the same pictures, only later. The one exception is `run_copy` NONE, where
LoRAs run beside the weights, which rounds differently than merging them; it comes last at each stage of giving way.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from darkroom.errors import BadSetting
from darkroom.memory.needs import Needs, Part

Dtype = Literal["bfloat16", "float32"]
Tier = Literal["exact", "fast"]

GB = 10**9
CONTEXT_BYTES = 800_000_000
"""CUDA's context and the libraries' own buffers, on each GPU."""
HOST_BYTES = 1_500_000_000
"""Interpreter, libraries, pictures on their way: what a worker takes in host memory before it holds any weights."""

_FLOAT8 = "float8_e4m3fn"
_VALUE_BYTES = {_FLOAT8: 1, "bfloat16": 2, "float32": 4}
_SCALE_BYTES = 4
"""Of a row in float8."""
_COPIES = (Part.RUN_COPY, Part.NEXT_COPY)
_LEAVING = ((), (Part.TEXT_ENCODER,), (Part.TEXT_ENCODER, Part.MODULATION))
"""What moves to host memory, the next only where the one before is not enough: read once a request, largest first."""


class Place(StrEnum):
    """HOST: kept in host memory and brought to the device piece by piece when it is computed with."""

    DEVICE = "device"
    HOST = "host"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """memory_bytes: what one worker may take there. host_memory_bytes: the same of host memory; None: enough."""

    name: str
    kind: Literal["cuda", "cpu"]
    memory_bytes: int
    host_memory_bytes: int | None = None
    multiplies_fp8: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """dtype: of most of its values."""

    part: Part
    place: Place
    dtype: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """For one worker on one device.

    working_bytes: the most that one edit takes beside the weights, pieces of streamed parts included; the VAE may take
    as much. cache_bytes: what may be kept from one edit to the next.
    """

    device: Device
    parts: tuple[Placed, ...]
    working_bytes: int
    cache_bytes: int
    context_bytes: int

    def __getitem__(self, part: Part) -> Placed:
        return next(placed for placed in self.parts if placed.part == part)

    @property
    def run_copy(self) -> Place:
        """Where the second copy of the transformer lies. DEVICE: LoRAs are merged in milliseconds. HOST: in a second or
        two, as the weights come from there. NONE: they run beside the weights, some percent of each step."""
        return self[Part.RUN_COPY].place

    @property
    def merged_bytes(self) -> int:
        """What merged sets of LoRAs may take on the device, in the form they are computed with."""
        return sum(self[part].size_bytes for part in _COPIES if self[part].place == Place.DEVICE)

    @property
    def device_bytes(self) -> int:
        return self._held(Place.DEVICE) + self.working_bytes + self.cache_bytes + self.context_bytes

    @property
    def host_bytes(self) -> int:
        """Of host memory beside a GPU; none beside a CPU, whose memory it is."""
        return self._held(Place.HOST) + HOST_BYTES if self.device.kind == "cuda" else 0

    @property
    def headroom_bytes(self) -> int:
        return self.device.memory_bytes - self.device_bytes

    @property
    def fits(self) -> bool:
        host_bytes = self.device.host_memory_bytes
        return self.headroom_bytes >= 0 and (host_bytes is None or self.host_bytes <= host_bytes)

    def _held(self, place: Place) -> int:
        return sum(placed.size_bytes for placed in self.parts if placed.place == place)


def make_plan(needs: Needs, device: Device, *, dtype: Dtype, tier: Tier, cache_bytes: int) -> Plan:
    """The first that fits of: all on the device; the text encoder in host memory; modulation there too. At each, the
    run copy is on the device, in host memory, or left out; and where nothing else has to give way for it, there is a
    second one on the device.

    dtype: what is computed in, where not in float8: that are the blocks' matrices in the fast tier, computing in
    bfloat16, on a device that multiplies it. Raises `BadSetting` with figures, and with what would make it fit.
    """

    def plans(of_dtype: Dtype, of_tier: Tier) -> list[Plan]:
        return list(_plans(needs, device, of_dtype, of_tier, cache_bytes))

    if plan := _first(plans(dtype, tier)):
        return plan
    others = {
        "DARKROOM_DTYPE=bfloat16": _first(plans("bfloat16", tier)),
        "DARKROOM_QUALITY_TIER=fast": _first(plans(dtype, "fast")),
    }
    raise BadSetting(_refusal(plans(dtype, tier), tier, others))


def share(memory_bytes: int, limit_gb: float | None) -> int:
    """What a worker may take of a device's memory, by the operator's limit; None: all."""
    return memory_bytes if limit_gb is None else min(memory_bytes, int(limit_gb * GB))


def in_gb(size_bytes: float) -> str:
    return f"{size_bytes / GB:.1f} GB"


def _plans(needs: Needs, device: Device, dtype: Dtype, tier: Tier, cache_bytes: int) -> Iterator[Plan]:
    """From the one that takes most of the device to the one that takes least."""
    on_cpu = device.kind == "cpu"
    float8 = tier == "fast" and device.multiplies_fp8 and dtype == "bfloat16"
    one = [(copy, Place.NONE) for copy in Place if not (on_cpu and copy == Place.HOST)]
    for leaving in _LEAVING[:1] if on_cpu else _LEAVING:
        for copy, next_copy in one if leaving else [(Place.DEVICE, Place.DEVICE), *one]:
            places = {part: Place.HOST if part in leaving else Place.DEVICE for part in Part}
            places |= {Part.RUN_COPY: copy, Part.NEXT_COPY: next_copy}
            places[Part.STORED] = Place.DEVICE if copy == Place.DEVICE and (float8 or on_cpu) else Place.NONE
            places[Part.BESIDE] = Place.DEVICE if copy == Place.NONE else Place.NONE
            streamed = [part for part, place in places.items() if place == Place.HOST]
            yield Plan(
                device=device,
                parts=tuple(_placed(needs, part, place, dtype, float8=float8) for part, place in places.items()),
                working_bytes=needs.working_values(streamed) * _VALUE_BYTES[dtype],
                cache_bytes=cache_bytes,
                context_bytes=HOST_BYTES if on_cpu else CONTEXT_BYTES,
            )


def _first(plans: Iterable[Plan]) -> Plan | None:
    return next((plan for plan in plans if plan.fits), None)


def _placed(needs: Needs, part: Part, place: Place, dtype: Dtype, *, float8: bool) -> Placed:
    """float8: whether BLOCKS are computed with in it. Then so are copies, but not what they are merged from, which on
    the device are BLOCKS alone, and on the host is all that the run copy has."""
    blocks, values = needs.parameters[Part.BLOCKS], needs.parameters[part]
    if float8 and part == Part.STORED:
        values = blocks
    in_float8 = float8 and (part == Part.BLOCKS or (part in _COPIES and place == Place.DEVICE))
    size_bytes = values * _VALUE_BYTES[dtype]
    if in_float8:
        size_bytes += needs.rows * _SCALE_BYTES - blocks * (_VALUE_BYTES[dtype] - _VALUE_BYTES[_FLOAT8])
    return Placed(
        part=part,
        place=place,
        dtype=_FLOAT8 if in_float8 else dtype,
        size_bytes=0 if place == Place.NONE else size_bytes,
    )


def _refusal(plans: Sequence[Plan], tier: Tier, others: Mapping[str, Plan | None]) -> str:
    """others: by setting, the plan that would do under it."""
    device = plans[0].device
    has = in_gb(device.memory_bytes)
    if device.host_memory_bytes is not None:
        has += f" and {in_gb(device.host_memory_bytes)} of host memory"
    if device.kind == "cuda" and tier == "fast" and not device.multiplies_fp8:
        has += ", and does not multiply float8"
    takes = " or ".join(
        in_gb(plan.device_bytes) + (f" beside {in_gb(plan.host_bytes)} of host memory" if plan.host_bytes else "")
        for plan in plans
        if plan.run_copy == Place.NONE
    )
    enough = [f"; {setting} makes it fit, in {in_gb(plan.device_bytes)}" for setting, plan in others.items() if plan]
    return f"the checkpoint does not fit: {device.name} has {has}; it takes {takes}{''.join(enough)}"
