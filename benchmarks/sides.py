"""The two sides: this engine, and the reference pipeline of diffusers. Both tell an edit's seconds by stage."""

import time
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from torch import Tensor

from benchmarks.request import WARM_UP_STEPS, Request, Stages, make_request
from benchmarks.work import MEMO_BYTES
from darkroom.checkpoint.declaration import WorkingSizes, read_declaration
from darkroom.engine.device import Precision
from darkroom.engine.engine import Engine
from darkroom.job import Stage
from parity.oracle import Reference


class Ours:
    def __init__(self, checkpoint: Path, dtype: Precision) -> None:
        self.engine = Engine.load(checkpoint, device="cpu", dtype=dtype, memo_bytes=MEMO_BYTES)
        self.sizes = read_declaration(checkpoint).working_sizes

    def edit(self, request: Request, sizes: WorkingSizes) -> Stages:
        with patch.object(self.engine, "_sizes", sizes):
            started = time.perf_counter()
            made = self.engine.edit(request.edit, request.pictures, lambda _: None)
            return {**made.timings_s, "total": time.perf_counter() - started}


class Theirs:
    """One of diffusers' pipelines, in which transformers is told of image tokens, as it must be.

    Its stages are cut where it does the same work as ours: `encode` starts with its first prompt and ends with the
    pictures' latents, `denoise` ends with the last step. Its vision processor runs within `encode`, ours in `prepare`.
    """

    def __init__(self, checkpoint: Path, dtype: Precision) -> None:
        reference = Reference(checkpoint, dtype=getattr(torch, dtype))
        self.pipeline = reference.pipeline
        self.sizes: WorkingSizes = reference.sizes

    def compile(self) -> None:
        """The transformer's blocks, for the whole process. Raises `RuntimeError` where that does not work."""
        # The compiler says of every block that it does not generate code for complex numbers.
        warnings.filterwarnings("ignore", "Torchinductor does not support code generation for complex operators")
        self.pipeline.transformer.compile_repeated_blocks(dynamic=True)
        self.edit(make_request(0, steps=WARM_UP_STEPS), self.sizes)

    def edit(self, request: Request, sizes: WorkingSizes) -> Stages:
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

        side_px = int(sizes.output_area_px**0.5)
        with (
            patch.object(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", sizes.vae_area_px),
            patch.object(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", sizes.condition_area_px),
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
