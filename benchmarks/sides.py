"""The two sides: this engine, and the reference pipeline of diffusers. Both tell an edit's seconds by stage."""

import time
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from torch import Tensor

from benchmarks.request import Request
from darkroom.checkpoint.layout import WorkingSizes
from darkroom.engine.engine import Engine
from darkroom.job import Stage
from parity.oracle import Reference

Stages = dict[str, float]
"""Seconds by stage's name, with `total` beside them."""


def ours(engine: Engine, request: Request) -> Stages:
    started = time.perf_counter()
    made = engine.edit(request.edit, request.pictures, lambda _: None)
    return {**made.timings_s, "total": time.perf_counter() - started}


class Theirs:
    """One of diffusers' pipelines, in which transformers is told of image tokens, as it must be.

    Its stages are cut where it does the same work as ours: `encode` starts with its first prompt and ends with the
    pictures' latents, `denoise` ends with the last step. Its vision processor runs within `encode`, ours in `prepare`.
    """

    def __init__(self, checkpoint: Path, dtype: torch.dtype) -> None:
        reference = Reference(checkpoint, dtype=dtype)
        self.pipeline = reference.pipeline
        self.sizes: WorkingSizes = reference.sizes

    def edit(self, request: Request) -> Stages:
        """Of square pictures."""
        pipeline, edit = self.pipeline, request.edit
        marks: dict[str, float] = {}
        encode_prompt, prepare_latents = pipeline.encode_prompt, pipeline.prepare_latents

        def encode_noting(*args: object, **options: object) -> object:
            marks.setdefault(Stage.PREPARE.value, time.perf_counter())
            return encode_prompt(*args, **options)

        def prepare_noting(*args: object, **options: object) -> object:
            latents = prepare_latents(*args, **options)
            marks[Stage.ENCODE.value] = time.perf_counter()
            return latents

        def on_step_end(_pipeline: object, _step: int, _timestep: Tensor, _values: object) -> dict[str, Tensor]:
            marks[Stage.DENOISE.value] = time.perf_counter()
            return {}

        side_px = int(self.sizes.output_area_px**0.5)
        with (
            patch.object(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", self.sizes.vae_area_px),
            patch.object(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", self.sizes.condition_area_px),
            patch.object(pipeline, "encode_prompt", encode_noting),
            patch.object(pipeline, "prepare_latents", prepare_noting),
        ):
            started = time.perf_counter()
            pipeline(
                image=list(request.pictures),
                prompt=edit.prompt,
                negative_prompt=edit.negative_prompt,
                true_cfg_scale=edit.true_cfg_scale,
                num_inference_steps=edit.num_inference_steps,
                generator=torch.Generator().manual_seed(edit.seed),
                width=side_px,
                height=side_px,
                callback_on_step_end=on_step_end,
            )
            marks[Stage.DECODE.value] = time.perf_counter()
        ends = [started, *marks.values()]
        stages = {name: end - begin for name, begin, end in zip(marks, ends, ends[1:], strict=False)}
        return {**stages, "total": ends[-1] - started}
