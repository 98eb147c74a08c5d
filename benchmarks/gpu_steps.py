"""Where a step's time goes: what the device can do, what the transformer makes of it, and what launching costs."""

import json
import os
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_bench import Bench, Found, tried
from benchmarks.gpu_lengths import first_calls
from benchmarks.gpu_reference import Inputs, conditions_of, make_inputs, steps_of
from darkroom.engine.denoise import Conditions, _velocity, denoise
from darkroom.engine.linear import Float8Linear, can_float8
from darkroom.engine.modulation import StepModulation
from darkroom.engine.transformer import Transformer, TransformerConfig

BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
TOP = 15
FEWER_PLANS = "TORCH_CUDNN_SDPA_AVOID_RECOMPILE"


@torch.inference_mode()
def floors(bench: Bench) -> Found:
    """What a forward pass takes, and the transformer's TFLOP/s; beside what it must take: its matrix products and its
    attention alone, each at the best rate measured here."""
    transformer = bench.transformer("exact")
    config = transformer.config
    yield "copy", tried(_copy, bench)
    for pictures in (1,) if bench.toy else (1, 2, 3):
        inputs = _inputs(bench, transformer, pictures=pictures, prompts=1)
        forward = tried(_forward, bench, transformer, inputs)
        yield f"forward, {pictures} picture(s)", forward
        products = tried(_products, bench, config, inputs.image_tokens)
        yield f"products, {pictures} picture(s)", products
        attention = tried(_attention, bench, config, inputs.image_tokens + inputs.text_tokens)
        yield f"attention, {pictures} picture(s)", attention
        if not any("error" in each for each in (forward, products, attention)):
            yield f"floor, {pictures} picture(s)", _floor(config, forward, products, attention)


def _copy(bench: Bench) -> dict[str, float]:
    """GB/s, bytes read and bytes written counted."""
    source = torch.randn((1 << 20) if bench.toy else (1 << 30), device=bench.device)
    target = torch.empty_like(source)
    return {"gb_per_s": 2 * source.nbytes / bench.short_ms(lambda: target.copy_(source)) / 1e6}


def _products(bench: Bench, config: TransformerConfig, tokens: int) -> dict[str, dict[str, float]]:
    """Of one block's image stream: ms and TFLOP/s in bfloat16, and in float8 its inputs' conversion included."""
    dim, found = config.dim, {}
    for name, (inward, outward) in {
        "to_qkv": (dim, 3 * dim),
        "to_out": (dim, dim),
        "net.0": (dim, 4 * dim),
        "net.2": (4 * dim, dim),
    }.items():
        x = torch.randn(tokens, inward, device=bench.device, dtype=torch.bfloat16)
        layer = torch.nn.Linear(inward, outward, device=bench.device, dtype=torch.bfloat16)
        tera = 2 * tokens * inward * outward / 1e12
        ms = bench.short_ms(lambda layer=layer, x=x: layer(x))
        found[name] = {"ms": ms, "tflop_per_s": 1000 * tera / ms}
        if can_float8(bench.device):
            coarse = Float8Linear(layer, bench.kernels)
            float8_ms = bench.short_ms(lambda layer=coarse, x=x: layer(x))
            found[name] |= {"float8_ms": float8_ms, "float8_tflop_per_s": 1000 * tera / float8_ms}
    return found


def _attention(bench: Bench, config: TransformerConfig, tokens: int) -> dict[str, Any]:
    """Milliseconds by backend, as the engine lays queries, keys and values out: by token, then by head."""
    heads, head_dim = config.num_attention_heads, config.attention_head_dim
    dtype = bench.dtype
    query, key, value = (
        torch.randn(tokens, heads, head_dim, device=bench.device, dtype=dtype)[None].transpose(1, 2) for _ in range(3)
    )

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    found: dict[str, Any] = {"tokens": tokens, "torch's choice": bench.short_ms(attend)}
    for name in BACKENDS if bench.cuda else ("MATH",):
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                found[name] = bench.short_ms(attend)
        except RuntimeError as refused:
            found[name] = f"not to be had: {str(refused)[:200]}"
    best_ms = min(ms for ms in found.values() if isinstance(ms, float))
    return {**found, "best_ms": best_ms, "best_tflop_per_s": 4 * tokens**2 * config.dim / best_ms / 1e9}


def _forward(bench: Bench, transformer: Transformer, inputs: Inputs) -> dict[str, float]:
    conditions, at, latents = _step(transformer, inputs)
    seconds = bench.seconds(lambda: _velocity(transformer, latents, conditions, at), rounds=2)
    tera = forward_flops(transformer.config, inputs) / 1e12
    return {"s": seconds, "tflop": tera, "tflop_per_s": tera / seconds}


def _floor(
    config: TransformerConfig, forward: dict[str, float], products: dict[str, Any], attention: dict[str, Any]
) -> dict[str, float]:
    """rest: the share of a pass that is neither."""
    floor_s = config.num_layers * (attention["best_ms"] + sum(each["ms"] for each in products.values())) / 1000
    return {"products_and_attention_s": floor_s, "rest": 1 - floor_s / forward["s"]}


def forward_flops(config: TransformerConfig, inputs: Inputs) -> float:
    """Of one prompt's pass: all blocks whole, the last one's queries and MLP for the result's tokens alone."""
    dim, result = config.dim, inputs.noise.shape[1]
    joint = inputs.image_tokens + inputs.text_tokens
    block = 24 * joint * dim**2 + 4 * joint**2 * dim
    last = 4 * joint * dim**2 + 20 * result * dim**2 + 4 * result * joint * dim
    return float((config.num_layers - 1) * block + last)


@torch.inference_mode()
def profiled(bench: Bench) -> Found:
    """One forward pass by kernel: the most expensive ones, their calls, ms, and share of all."""
    transformer = bench.transformer("exact")
    inputs = _inputs(bench, transformer, pictures=1, prompts=1)
    conditions, at, latents = _step(transformer, inputs)
    _velocity(transformer, latents, conditions, at)
    bench.synchronize()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
    with profile(activities=activities) as seen:
        _velocity(transformer, latents, conditions, at)
        bench.synchronize()
    calls: dict[str, int] = defaultdict(int)
    ms: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        if bench.cuda and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        taken_us = event.self_device_time_total if bench.cuda else event.self_cpu_time_total
        calls[event.key[:100]] += event.count
        ms[event.key[:100]] += taken_us / 1000
    total = sum(ms.values())
    yield "total_ms", total
    for name in sorted(ms, key=lambda each: -ms[each])[:TOP]:
        yield name, {"calls": calls[name], "ms": ms[name], "share": ms[name] / max(total, 1e-9)}


@torch.inference_mode()
def launching(bench: Bench) -> Found:
    """Both prompts in one batch against one after the other, by size. Then a forward pass launched kernel by kernel,
    and replayed as a CUDA graph; launch_ms: until the last is queued."""
    transformer = bench.transformer("exact")
    for side in (4, bench.side) if bench.toy else (16, 24, 32, 40, 48, bench.side):
        yield f"batched, {16 * side} px", tried(_batched, bench, transformer, side)
    for side in (4, bench.side) if bench.toy else (16, 32, bench.side):
        yield f"graph, {16 * side} px", tried(_graph, bench, transformer, side)


def _batched(bench: Bench, transformer: Transformer, side: int) -> dict[str, float]:
    inputs = _inputs(bench, transformer, pictures=1, prompts=2, side=side)
    found: dict[str, float] = {"image_tokens": inputs.image_tokens}
    for how, bound in (("batched", 1 << 30), ("serial", 0)):
        conditions, at, latents = _step(transformer, inputs, batched_tokens=bound)
        found[f"{how}_s"] = bench.seconds(
            lambda latents=latents, conditions=conditions, at=at: _velocity(transformer, latents, conditions, at)
        )
    return {**found, "serial to batched": found["serial_s"] / found["batched_s"]}


def _graph(bench: Bench, transformer: Transformer, side: int) -> dict[str, Any]:
    inputs = _inputs(bench, transformer, pictures=1, prompts=1, side=side)
    conditions, at, latents = _step(transformer, inputs)

    def step() -> torch.Tensor:
        return _velocity(transformer, latents, conditions, at)

    eager_s = bench.seconds(step)
    bench.synchronize()
    started = time.perf_counter()
    expected = step()
    launch_s = time.perf_counter() - started
    found: dict[str, Any] = {"eager_ms": 1000 * eager_s, "launch_ms": 1000 * launch_s}
    if not bench.cuda:
        return found
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    found["replay_ms"] = 1000 * bench.seconds(graph.replay)
    return {**found, "same": bool(torch.equal(captured, expected))}


@torch.inference_mode()
def waits(bench: Bench) -> Found:
    """Where the host waits for the GPU: within a denoising, by line; within its steps, which must not."""
    if not bench.cuda:
        yield "left out", "a CPU's host waits for itself"
        return
    transformer = bench.transformer("exact")
    inputs = _inputs(bench, transformer, pictures=1, prompts=2)
    yield "in a denoising", tried(_waits_by_line, transformer, inputs)
    yield "in its steps", tried(_steps_without_waiting, transformer, inputs)


def _waits_by_line(transformer: Transformer, inputs: Inputs) -> list[str]:
    conditions, schedule = conditions_of(transformer, inputs), steps_of(inputs, 2)
    denoise(transformer, inputs.noise, conditions, schedule, lambda _: None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            denoise(transformer, inputs.noise, conditions, schedule, lambda _: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}: {str(each.message)[:120]}" for each in said]


def _steps_without_waiting(transformer: Transformer, inputs: Inputs) -> str:
    conditions, schedule = conditions_of(transformer, inputs), steps_of(inputs, 2)
    modulation, latents = transformer.modulation(schedule.timesteps), inputs.noise
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(schedule.steps):
            velocity = _velocity(transformer, latents, conditions, modulation.at(step))
            latents = latents + (schedule.sigmas[step + 1] - schedule.sigmas[step]) * velocity
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def lengths(bench: Bench) -> Found:
    """Attention at lengths that it has not met before, for which cuDNN makes plans: by torch's choice, without cuDNN,
    and by cuDNN told to make fewer of them."""
    image_tokens = 2 * bench.side**2
    flash, cudnn = "FLASH_ATTENTION", "CUDNN_ATTENTION" if bench.cuda else "MATH"
    yield "torch's choice", tried(first_calls, bench.device, image_tokens, "")
    yield flash, tried(first_calls, bench.device, image_tokens, flash)
    yield f"{cudnn}, {FEWER_PLANS}", tried(_apart, bench, image_tokens, cudnn)


def _apart(bench: Bench, image_tokens: int, backend: str) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_lengths", str(bench.device), str(image_tokens), backend],
        env={**os.environ, FEWER_PLANS: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=min(20, bench.left_s),
    )
    if run.returncode:
        raise RuntimeError(f"benchmarks.gpu_lengths ended with {run.returncode}: {run.stderr[-200:]}")
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def _inputs(bench: Bench, transformer: Transformer, *, pictures: int, prompts: int, side: int | None = None) -> Inputs:
    return make_inputs(
        transformer.config,
        side=side or bench.side,
        pictures=pictures,
        prompts=prompts,
        device=bench.device,
        dtype=bench.dtype,
    )


def _step(
    transformer: Transformer, inputs: Inputs, *, batched_tokens: int | None = None
) -> tuple[Conditions, StepModulation, torch.Tensor]:
    conditions = conditions_of(transformer, inputs, batched_tokens=batched_tokens)
    return conditions, transformer.modulation(steps_of(inputs, 2).timesteps).at(0), inputs.noise
