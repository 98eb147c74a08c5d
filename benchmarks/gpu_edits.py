"""Whole edits, from the bytes of a photo to those of the result, and what it takes to be ready for one."""

import io
import json
import subprocess
import sys
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_bench import Bench, Found, off_by, tried
from benchmarks.gpu_reference import make_inputs, our_steps, steps_of
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.engine.decode import decode

PROMPT = "Turn the camera to a top-down view and make it a rainy evening."
MANY_STEPS = 40
SHORT, SHORTER = 8, 2
"""Guided steps that are timed; what a step more takes tells what `MANY_STEPS` would."""
PNG_LEVEL, WEBP_METHOD, WEBP_QUALITY = 1, 4, 95
"""As the worker writes them."""
PREPARATION_RESERVE_S = 75
"""Kept for `ready`, which comes after `whole`."""


def exact(bench: Bench) -> Found:
    yield from _table(bench, "exact")


def fast(bench: Bench) -> Found:
    """fp8_forward, fp8_edit: how far the fast tier's numbers and pictures are off the exact tier's."""
    yield "weights_gb", _gb(bench, "fast")
    yield from _table(bench, "fast")
    yield "fp8_forward", tried(_forward_error, bench)
    yield "fp8_edit", tried(_edit_error, bench)


def whole(bench: Bench) -> Found:
    """The rows of 40 guided steps that there is time for, measured instead of reckoned."""
    for pictures in (1,) if bench.toy else (1, 2, 3):
        for tier in ("exact", "fast"):
            needed_s = 0.5 if bench.toy else 30 * pictures if tier == "exact" else 22 * pictures
            if bench.left_s > needed_s + PREPARATION_RESERVE_S:
                yield row_name(MANY_STEPS, pictures, tier), tried(_timed, bench, tier, MANY_STEPS, pictures)


def row_name(steps: int, pictures: int, tier: str) -> str:
    return f"{steps} steps, {pictures} picture(s), {tier}"


def _table(bench: Bench, tier: str) -> Found:
    """Seconds by stage: of the first edit, then warmed up."""
    for pictures in (1,) if bench.toy else (1, 2, 3):
        yield f"first of {pictures} picture(s), {tier}", tried(_timed, bench, tier, 1, pictures)
        for steps in (8, 4):
            yield row_name(steps, pictures, tier), tried(_better, bench, tier, steps, pictures)
        yield row_name(MANY_STEPS, pictures, tier), tried(_reckoned, bench, tier, pictures)


def _better(bench: Bench, tier: str, steps: int, pictures: int) -> dict[str, float]:
    """Of two runs without guidance, as step-distilled LoRAs have it."""
    runs = [_timed(bench, tier, steps, pictures, guided=False) for _ in range(2)]
    return min(runs, key=lambda run: run["total"])


def _reckoned(bench: Bench, tier: str, pictures: int) -> dict[str, float]:
    """What `MANY_STEPS` would take, from fewer."""
    long, short = (_timed(bench, tier, steps, pictures) for steps in (SHORT, SHORTER))
    step_s = (long["denoise"] - short["denoise"]) / (SHORT - SHORTER)
    more_s = (MANY_STEPS - SHORT) * step_s
    many = {"denoise": long["denoise"] + more_s, "total": long["total"] + more_s}
    return {**long, **many, "guided_step": step_s, "extrapolated": True}


def _timed(bench: Bench, tier: str, steps: int, pictures: int, *, guided: bool = True) -> dict[str, float]:
    engine = bench.engine(tier)
    edit = make_edit(steps, pictures, guided=guided)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    beside = bench.allocated_bytes() - bench.weights_bytes[tier]
    started = time.perf_counter()
    images = _read(bench, pictures)
    read_s = time.perf_counter() - started
    made = engine.edit(edit, images, lambda _: None)
    before_png = time.perf_counter()
    made.image.save(io.BytesIO(), "PNG", compress_level=PNG_LEVEL)
    ended = time.perf_counter()
    made.image.save(io.BytesIO(), "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    webp_s = time.perf_counter() - ended
    peak = torch.cuda.max_memory_allocated(bench.device) - beside if bench.cuda else 0
    return {
        "total": ended - started,
        "read": read_s,
        **made.timings_s,
        "png": ended - before_png,
        "webp instead": webp_s,
        "peak_gb": peak / 1e9,
    }


def make_edit(steps: int, pictures: int, *, guided: bool) -> Edit:
    return Edit(
        prompt=PROMPT,
        negative_prompt=" " if guided else "",
        pictures=tuple(PictureRef(field=f"image_{number}", blob="none") for number in range(1, pictures + 1)),
        aspect_ratio=(1, 1),
        seed=7,
        num_inference_steps=steps,
        true_cfg_scale=4.0 if guided else 1.0,
        output=Output(format=ImageFormat.PNG, quality=95),
    )


@cache
def photos(count: int, *, toy: bool) -> list[bytes]:
    """JPEG files of 12 megapixels, square, so that a token count is the table's."""
    side_px, files = (256 if toy else 3456), []
    for seed in range(count):
        shapes = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(shapes).resize((side_px, side_px), Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    return files


def _read(bench: Bench, count: int) -> list[Image.Image]:
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in photos(count, toy=bench.toy)]


@torch.inference_mode()
def encode(bench: Bench) -> Found:
    """Seconds of the encode stage's parts: the vision tower and the VAE for all pictures, the language model for one
    prompt."""
    for pictures in (1,) if bench.toy else (1, 2, 3):
        yield f"{pictures} picture(s)", tried(_encode_parts, bench, pictures)


def _encode_parts(bench: Bench, pictures: int) -> dict[str, float]:
    engine = bench.engine("exact")
    text, vae = engine._models.text, engine._models.vae
    prepared = engine.prepare(make_edit(4, pictures, guided=False), _read(bench, pictures))
    seen = prepared.seen
    features = text.look(seen)
    return {
        "text_tokens": text.encode(PROMPT, features, seen.grids).shape[1],
        "vision_s": bench.seconds(lambda: text.look(seen)),
        "language_s": bench.seconds(lambda: text.encode(PROMPT, features, seen.grids)),
        "vae_s": bench.seconds(lambda: [vae.encode(each.pixels) for each in prepared.references]),
    }


@torch.inference_mode()
def _forward_error(bench: Bench) -> float:
    """Of one step's latents, as a share of the exact ones' change."""
    transformers = [bench.transformer(tier) for tier in ("fast", "exact")]
    inputs = make_inputs(
        transformers[1].config, side=bench.side, pictures=1, prompts=1, device=bench.device, dtype=bench.dtype
    )
    made, expected = (our_steps(each, inputs, steps_of(inputs, 1)) - inputs.noise for each in transformers)
    return off_by(made, expected)


@torch.inference_mode()
def _edit_error(bench: Bench) -> dict[str, float]:
    """Of eight steps: the latents, and the picture in levels of 255."""
    edit = make_edit(8, 1, guided=False)
    images = _read(bench, 1)
    latents, levels = [], []
    for tier in ("fast", "exact"):
        engine = bench.engine(tier)
        prepared = engine.prepare(edit, images)
        made = engine._denoise(edit, prepared, engine._encode(edit, prepared), lambda _: None)
        size = {"width_px": prepared.width_px, "height_px": prepared.height_px}
        latents.append(made)
        levels.append(np.asarray(decode(engine._models.vae, made, **size), dtype=np.float64))
    off = np.abs(levels[0] - levels[1])
    return {"latents": off_by(*latents), "mean_levels": float(off.mean()), "most_levels": float(off.max())}


def ready(bench: Bench) -> Found:
    """From a process's start to weights on the device, read from a warm page cache by the engine's own loading; this
    process's first edit beside it, which `cold_start_s` counts as if it came next."""
    yield "copy to device", _to_device(bench)
    bench.engines.clear()
    bench.release()
    started = time.perf_counter()
    size = sum(_read_through(path) for path in sorted(bench.checkpoint.rglob("*.safetensors")))
    yield "page cache", {"gb": size / 1e9, "s": time.perf_counter() - started}
    command = [sys.executable, "-m", "benchmarks.gpu_ready", str(bench.checkpoint), str(bench.device)]
    run = subprocess.run(
        [*command, str(time.time())], capture_output=True, text=True, check=False, timeout=bench.left_s
    )
    if run.returncode:
        raise RuntimeError(f"benchmarks.gpu_ready ended with {run.returncode}: {run.stderr[-2000:]}")
    yield "load", json.loads(run.stdout.splitlines()[-1])


def _to_device(bench: Bench) -> dict[str, float]:
    """GB/s from memory that is pinned, and from memory that is not."""
    source = torch.empty(1 << (20 if bench.toy else 30), dtype=torch.uint8).random_()
    found = {"pageable_gb_per_s": source.nbytes / 1e9 / bench.seconds(lambda: source.to(bench.device, copy=True))}
    if bench.cuda:
        pinned = source.pin_memory()
        found["pinned_gb_per_s"] = source.nbytes / 1e9 / bench.seconds(lambda: pinned.to(bench.device))
    return found


def _read_through(path: Any) -> int:
    buffer, size = bytearray(1 << 26), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
    return size


def _gb(bench: Bench, tier: str) -> float:
    bench.engine(tier)
    return bench.weights_bytes[tier] / 1e9
