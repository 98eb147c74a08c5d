"""The memory plan, as the settings would have it and as people read it."""

from collections.abc import Iterator

from darkroom.cli.console import say, show
from darkroom.memory.needs import Needs
from darkroom.memory.plan import Device, Dtype, Place, Plan, in_gb, make_plan
from darkroom.settings import Settings

_COPY = {
    Place.DEVICE: "LoRAs are merged into it within milliseconds",
    Place.HOST: "LoRAs are merged from host memory, within a second or two",
    Place.NONE: "LoRAs run beside the weights, which costs some percent of each step",
}


def plan_for(settings: Settings, needs: Needs, device: Device, *, auto: Dtype) -> Plan:
    """auto: the dtype where the settings leave the choice to the device. Raises `BadSetting`."""
    return make_plan(
        needs,
        device,
        dtype=auto if settings.dtype == "auto" else settings.dtype,
        tier=settings.quality_tier,
        cache_bytes=settings.encode_cache_mb * 2**20,
    )


def show_plan(plan: Plan) -> None:
    """As a table on standard output: the part, where it lies, its dtype and its size; below it, what they add up to."""
    say(f"\nmemory plan for {described(plan.device)}, one worker\n")
    show(("part", "where", "dtype", "GB"), _rows(plan), numbers=("GB",))
    say(f"\n{in_gb(plan.device_bytes)} on the device, {in_gb(plan.headroom_bytes)} left")
    if plan.host_bytes:
        say(f"{in_gb(plan.host_bytes)} of host memory")
    say(f"run copy: {_COPY[plan.run_copy]}")


def described(device: Device) -> str:
    host_bytes = device.host_memory_bytes
    return f"{device.name} with {in_gb(device.memory_bytes)}" + (
        "" if host_bytes is None else f" and {in_gb(host_bytes)} of host memory"
    )


def _rows(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    for placed in plan.parts:
        yield placed.part, placed.place, placed.dtype if placed.size_bytes else "", _gb(placed.size_bytes)
    yield "working memory of an edit", Place.DEVICE, "", _gb(plan.working_bytes)
    yield "kept prompts and references", Place.DEVICE, "", _gb(plan.cache_bytes)
    yield "process and libraries", Place.DEVICE, "", _gb(plan.context_bytes)


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 10**9:.2f}"
