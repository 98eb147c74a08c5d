import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.layout import read_layout
from darkroom.checkpoint.published import PUBLISHED
from darkroom.errors import BadSetting
from darkroom.memory.needs import Needs, Part
from darkroom.memory.plan import GB, HOST_BYTES, Device, Place, Plan, make_plan

NEEDS = Needs.read(PUBLISHED["Qwen/Qwen-Image-Edit-2509"], WorkingSizes())
BLOCKS = (Part.BLOCKS, Part.KEPT_EXACT)
COMPUTED = (*BLOCKS, Part.MODULATION, Part.REST, Part.TEXT_ENCODER, Part.VAE)


def gpu(memory_gb: float, host_gb: float | None = None, *, fp8: bool = True) -> Device:
    host_bytes = None if host_gb is None else int(host_gb * GB)
    return Device(
        name="cuda:0",
        kind="cuda",
        memory_bytes=int(memory_gb * GB),
        host_memory_bytes=host_bytes,
        multiplies_fp8=fp8,
    )


def cpu(memory_gb: float) -> Device:
    return Device(name="cpu", kind="cpu", memory_bytes=int(memory_gb * GB))


def made(device: Device, dtype="bfloat16", tier="exact") -> Plan:
    return make_plan(NEEDS, device, dtype=dtype, tier=tier, cache_bytes=256 * 2**20)


def refused(device: Device, dtype="bfloat16", tier="exact") -> str:
    with pytest.raises(BadSetting) as caught:
        made(device, dtype, tier)
    return caught.value.message


def on_host(plan: Plan) -> set[Part]:
    return {placed.part for placed in plan.parts if placed.place == Place.HOST}


def given_way(plan: Plan) -> tuple[int, int, int]:
    """How many parts have left the device; then how far the run copy is from it, and the next one."""
    copies = (list(Place).index(plan[part].place) for part in (Part.RUN_COPY, Part.NEXT_COPY))
    return len(on_host(plan) - {Part.RUN_COPY}), *copies


@pytest.mark.parametrize(
    ("memory_gb", "host_gb", "tier", "run_copy", "host"),
    [
        (141, 128, "exact", "device", set()),
        (141, 128, "fast", "device", set()),
        (80, 128, "exact", "host", {Part.RUN_COPY}),
        (80, 24, "exact", "none", set()),
        (110, 128, "fast", "device", set()),
        (80, 128, "fast", "host", {Part.RUN_COPY}),
        (48, 64, "exact", "host", {Part.TEXT_ENCODER, Part.RUN_COPY}),
        (48, 32, "exact", "none", {Part.TEXT_ENCODER}),
        (40, 80, "exact", "host", {Part.TEXT_ENCODER, Part.MODULATION, Part.RUN_COPY}),
        (48, 64, "fast", "host", {Part.TEXT_ENCODER, Part.RUN_COPY}),
        (24, 80, "fast", "host", {Part.TEXT_ENCODER, Part.MODULATION, Part.RUN_COPY}),
        (25.3, 32, "fast", "none", {Part.TEXT_ENCODER, Part.MODULATION}),
    ],
)
def test_gpus_at_published_size(memory_gb, host_gb, tier, run_copy, host):
    """The run copy gives way first, then the text encoder, then modulation: each only where the one before won't do."""
    plan = made(gpu(memory_gb, host_gb), tier=tier)
    assert (plan.run_copy, on_host(plan)) == (run_copy, host)
    assert {plan[part].place for part in (*BLOCKS, Part.REST, Part.VAE)} == {Place.DEVICE}


@pytest.mark.parametrize(
    ("memory_gb", "dtype", "run_copy"),
    [(64, "bfloat16", "none"), (140, "bfloat16", "device"), (128, "float32", "none"), (280, "float32", "device")],
)
def test_cpus_at_published_size(memory_gb, dtype, run_copy):
    """Everything is in memory, in the dtype computed in; the run copy where it fits as well."""
    plan = made(cpu(memory_gb), dtype)
    assert (plan.run_copy, plan.host_bytes, on_host(plan)) == (run_copy, 0, set())
    assert {placed.dtype for placed in plan.parts} == {dtype}


@pytest.mark.parametrize(
    ("device", "dtype", "tier", "said"),
    [
        (gpu(25.3, 64), "bfloat16", "exact", "DARKROOM_QUALITY_TIER=fast makes it fit"),
        (gpu(24, 64, fp8=False), "bfloat16", "exact", "cuda:0 has 24.0 GB and 64.0 GB of host memory; it takes"),
        (gpu(24, 64, fp8=False), "bfloat16", "fast", "does not multiply float8"),
        (gpu(24, 16), "bfloat16", "fast", "24.0 GB and 16.0 GB of host memory"),
        (gpu(16, 64), "bfloat16", "fast", "cuda:0 has 16.0 GB"),
        (gpu(48, 64), "float32", "exact", "DARKROOM_DTYPE=bfloat16 makes it fit"),
        (cpu(24), "bfloat16", "exact", "cpu has 24.0 GB; it takes"),
        (cpu(64), "float32", "exact", "DARKROOM_DTYPE=bfloat16 makes it fit"),
    ],
)
def test_what_does_not_fit_is_refused_with_figures(device, dtype, tier, said):
    """The message says what there is, what it takes, and the setting that makes it fit, if one does."""
    message = refused(device, dtype, tier)
    assert said in message
    assert len(re.findall(r"\d+\.\d GB", message)) >= 2


def test_no_setting_is_recommended_that_does_not_help():
    """Where nothing makes it fit, no setting is named; the device's own lack of float8 counts."""
    for device in (gpu(16, 64), gpu(24, 64, fp8=False), cpu(24)):
        assert "DARKROOM_" not in refused(device)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_the_sizes_named_in_a_refusal_are_enough(way):
    """A GPU and host memory of any of the sizes it is said to take do; with a little less of either they do not."""
    named = re.findall(r"(\d+\.\d) GB beside (\d+\.\d) GB", refused(gpu(10)))
    gpu_gb, host_gb = map(float, named[way])
    assert made(gpu(gpu_gb + 0.1, host_gb + 0.1)).run_copy == Place.NONE
    refused(gpu(gpu_gb - 0.1, host_gb + 0.1))
    refused(gpu(gpu_gb + 0.1, host_gb - 0.1))


def test_fast_has_the_blocks_in_float8():
    """The tier halves the bytes of the matrices, in each copy, but for a scale for each row, and keeps what LoRAs are
    merged from as it was stored; everything else stays as it is."""
    exact, fast = made(gpu(141)), made(gpu(141), tier="fast")
    copies = (Part.BLOCKS, Part.RUN_COPY, Part.NEXT_COPY)
    assert {part for part in Part if fast[part] != exact[part]} == {*copies, Part.STORED}
    saved_bytes = NEEDS.parameters[Part.BLOCKS] - 4 * NEEDS.rows
    for part in copies:
        assert fast[part].dtype == "float8_e4m3fn"
        assert exact[part].size_bytes - fast[part].size_bytes == saved_bytes
    assert fast[Part.STORED].size_bytes == exact[Part.BLOCKS].size_bytes
    assert fast[Part.STORED].dtype == "bfloat16"


@pytest.mark.parametrize(
    ("device", "tier", "copies"),
    [
        (gpu(141), "exact", 2),
        (gpu(141), "fast", 2),
        (gpu(110), "exact", 1),
        (gpu(110), "fast", 1),
        (gpu(80), "exact", 0),
        (gpu(80), "fast", 0),
        (cpu(170), "exact", 2),
        (cpu(140), "exact", 1),
        (cpu(64), "exact", 0),
    ],
)
def test_merged_sets_have_room_for_the_next_job_where_there_is_memory(device, tier, copies):
    """The first copy is of all of the transformer, as some LoRAs change all of it; a second one, of the blocks, is
    there where all else is on the device already. Both are in the form that is computed with."""
    plan = made(device, tier=tier)
    first = (*BLOCKS, Part.MODULATION, Part.REST) if copies > 0 else ()
    second = BLOCKS if copies == 2 else ()
    assert plan.merged_bytes == sum(plan[part].size_bytes for part in (*first, *second))
    assert (plan[Part.NEXT_COPY].place == Place.DEVICE) == (copies == 2)
    assert (plan.run_copy == Place.DEVICE) == (copies > 0)
    merged_from_others = copies > 0 and (tier == "fast" or device.kind == "cpu")
    assert (plan[Part.STORED].place == Place.DEVICE) == merged_from_others


@pytest.mark.parametrize(
    ("device", "dtype"), [(gpu(141, fp8=False), "bfloat16"), (gpu(250), "float32"), (cpu(256), "bfloat16")]
)
def test_fast_is_exact_where_nothing_multiplies_float8(device, dtype):
    """A device without float8, and a float32 engine, compute as ever."""
    assert made(device, dtype, "fast") == made(device, dtype, "exact")


@given(
    memory_gb=st.floats(1, 200),
    more_gb=st.floats(0, 100),
    host_gb=st.floats(1, 200),
    more_host_gb=st.floats(0, 100),
    tier=st.sampled_from(["exact", "fast"]),
)
def test_more_memory_is_never_worse(memory_gb, more_gb, host_gb, more_host_gb, tier):
    """More memory, on the device or beside it, never refuses what fitted and never makes more give way; what is
    computed stays the same."""
    try:
        less = made(gpu(memory_gb, host_gb), tier=tier)
    except BadSetting:
        return
    more = made(gpu(memory_gb + more_gb, host_gb + more_host_gb), tier=tier)
    assert given_way(more) <= given_way(less)
    assert [more[part].dtype for part in COMPUTED] == [less[part].dtype for part in COMPUTED]


@given(
    device=st.builds(gpu, st.floats(1, 200), st.none() | st.floats(1, 200), fp8=st.booleans())
    | st.builds(cpu, st.floats(1, 200)),
    dtype=st.sampled_from(["bfloat16", "float32"]),
    tier=st.sampled_from(["exact", "fast"]),
)
def test_a_plan_keeps_within_what_there_is(device, dtype, tier):
    """Weights, working memory, caches and context add up to no more than the device has; likewise the host."""
    try:
        plan = made(device, dtype, tier)
    except BadSetting:
        return
    held = {place: sum(each.size_bytes for each in plan.parts if each.place == place) for place in Place}
    assert held[Place.DEVICE] + plan.working_bytes + plan.cache_bytes + plan.context_bytes <= device.memory_bytes
    if device.host_memory_bytes is not None:
        assert held[Place.HOST] + HOST_BYTES <= device.host_memory_bytes
    assert held[Place.NONE] == 0
    assert [each.part for each in plan.parts] == list(Part)


def test_every_next_plan_takes_less_of_the_device():
    """Along falling memory the plans taken need less and less, down to the refusal."""
    taken = [made(gpu(memory_gb)).device_bytes for memory_gb in range(150, 32, -1)]
    assert all(later <= earlier for earlier, later in pairwise(taken))
    assert len(set(taken)) == 5


@pytest.mark.parametrize("device", [gpu(2, 2), gpu(2, 2, fp8=False), cpu(2)])
def test_a_tiny_checkpoint_fits_everywhere(tiny_checkpoint, device):
    """With its run copies, on the device, so that no LoRA runs beside the weights."""
    layout = read_layout(tiny_checkpoint)
    configs = {part.name: part.config for part in (layout.transformer, layout.text_encoder, layout.vae)}
    needs = Needs.read(configs, layout.working_sizes)
    plan = make_plan(needs, device, dtype="float32", tier="exact", cache_bytes=256 * 2**20)
    absent = [Part.BESIDE] if device.kind == "cpu" else [Part.STORED, Part.BESIDE]
    assert [part for part in Part if plan[part].place != Place.DEVICE] == absent


def test_a_share_of_a_device_is_planned_like_a_smaller_device():
    """Only the bytes that may be taken count."""
    assert made(gpu(80)).parts == made(replace(gpu(141), memory_bytes=80 * GB)).parts
