"""The reference pipeline of diffusers, patched to be right, with every stage's values kept for comparison."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL.Image import Image
from torch import Tensor
from transformers import BatchFeature, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from darkroom.checkpoint.declaration import read_declaration
from darkroom.edit import Edit

MERGED_PATCHES = 4


@dataclass(kw_only=True)
class Kept:
    """One run's values. predictions: of each forward pass of the transformer, result tokens only. latents: after each
    step. picture: [height, width, 3] in 0…1."""

    seen: Tensor
    prompt: Tensor
    negative: Tensor | None
    references: Tensor
    noise: Tensor
    sigmas: Tensor
    timesteps: Tensor
    predictions: list[Tensor] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    picture: np.ndarray


class Processor:
    """Called like the full Qwen2-VL processor, which can't be imported without torchvision."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor")

    def __call__(self, *, text: list[str], images: list[Image], padding: bool, return_tensors: str) -> BatchFeature:
        seen = self.image_processor(images, return_tensors=return_tensors)
        counts = (int(grid.prod()) // MERGED_PATCHES for grid in seen["image_grid_thw"])
        filled = [re.sub(r"<\|image_pad\|>", lambda pad: pad[0] * next(counts), each) for each in text]
        return BatchFeature({**self.tokenizer(filled, padding=padding, return_tensors=return_tensors), **seen})


class Reference:
    """patched: tell the text encoder which tokens are image tokens, as transformers 5 needs and diffusers does not."""

    def __init__(self, folder: Path, *, patched: bool = True, dtype: torch.dtype = torch.float32) -> None:
        text_encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=dtype)
        if patched:
            text_encoder.register_forward_pre_hook(_mark_images, with_kwargs=True)
        self.pipeline = QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            vae=AutoencoderKLQwenImage.from_pretrained(folder / "vae", torch_dtype=dtype),
            text_encoder=text_encoder,
            tokenizer=Qwen2Tokenizer.from_pretrained(folder / "tokenizer"),
            processor=None,
            transformer=QwenImageTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype),
        )
        self.pipeline.processor = Processor(folder)
        self.pipeline.set_progress_bar_config(disable=True)
        self.sizes = read_declaration(folder).working_sizes

    def edit(self, edit: Edit, pictures: Sequence[Image]) -> Kept:
        ratio = edit.aspect_ratio or pictures[0].size
        width_px, height_px = pipeline_qwenimage_edit_plus.calculate_dimensions(
            self.sizes.output_area_px, ratio[0] / ratio[1]
        )
        latents: list[Tensor] = []

        def on_step_end(
            _pipeline: object, _step: int, _timestep: Tensor, values: dict[str, Tensor]
        ) -> dict[str, Tensor]:
            latents.append(values["latents"])
            return {}

        with self._keeping() as kept:
            picture = self.pipeline(
                image=list(pictures),
                prompt=edit.prompt,
                negative_prompt=edit.negative_prompt,
                true_cfg_scale=edit.true_cfg_scale,
                num_inference_steps=edit.num_inference_steps,
                generator=torch.Generator().manual_seed(edit.seed),
                width=width_px,
                height=height_px,
                output_type="np",
                callback_on_step_end=on_step_end,
            ).images[0]
        (noise, references), *_ = kept["prepare_latents"]
        (prompt, _), *negative = kept["encode_prompt"]
        return Kept(
            seen=kept["seen"][0],
            prompt=prompt,
            negative=negative[0][0] if negative else None,
            references=references,
            noise=noise,
            sigmas=self.pipeline.scheduler.sigmas,
            timesteps=self.pipeline.scheduler.timesteps,
            predictions=[output[0][:, : noise.shape[1]] for output in kept["predictions"]],
            latents=latents,
            picture=picture,
        )

    @contextmanager
    def _keeping(self) -> Iterator[dict[str, list]]:
        """The checkpoint's working sizes in place of the published ones; values on their way kept by name."""
        kept: dict[str, list] = {"encode_prompt": [], "prepare_latents": [], "seen": [], "predictions": []}

        def keeping(name: str):
            original = getattr(self.pipeline, name)

            def call(*args, **kwargs):
                kept[name].append(original(*args, **kwargs))
                return kept[name][-1]

            return patch.object(self.pipeline, name, call)

        hooks = (
            self.pipeline.text_encoder.register_forward_pre_hook(
                lambda _, __, inputs: kept["seen"].append(inputs["pixel_values"]), with_kwargs=True
            ),
            self.pipeline.transformer.register_forward_hook(lambda _, __, output: kept["predictions"].append(output)),
        )
        with (
            patch.object(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", self.sizes.vae_area_px),
            patch.object(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", self.sizes.condition_area_px),
            keeping("encode_prompt"),
            keeping("prepare_latents"),
        ):
            try:
                yield kept
            finally:
                for hook in hooks:
                    hook.remove()


def _mark_images(model: Qwen2_5_VLForConditionalGeneration, args: tuple, inputs: dict) -> tuple[tuple, dict]:
    return args, {**inputs, "mm_token_type_ids": (inputs["input_ids"] == model.config.image_token_id).int()}
