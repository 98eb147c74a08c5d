"""The prompt and the pictures, read by Qwen2.5-VL: the text half of what the transformer is conditioned on."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2Tokenizer

from darkroom.checkpoint.layout import Component
from darkroom.engine.lend import HOST, lend_from_host
from darkroom.engine.load import WithoutMemory, fill
from darkroom.engine.prepare import MERGE, Seen
from darkroom.errors import BadCheckpoint

PREFIX: Final = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
PICTURE: Final = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"
SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n"

DROPPED_TOKENS: Final = 64
"""Tokens of `PREFIX`, whose hidden states the transformer was never shown."""

IMAGE_TOKEN: Final = "<|image_pad|>"  # noqa: S105  a token of the vocabulary


class TextEncoder:
    def __init__(self, model: Qwen2_5_VLModel, tokenizer: Qwen2Tokenizer, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._tokenizer = tokenizer
        self._image_token = model.config.image_token_id

    @classmethod
    def load(
        cls,
        component: Component,
        tokenizer: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        on_host: bool = False,
    ) -> "TextEncoder":
        """on_host: weights stay in host memory and come to the device layer by layer.

        Raises `BadCheckpoint`. The language model's head is not loaded: only hidden states are read.
        """
        config = Qwen2_5_VLConfig.from_dict(dict(component.config))
        with WithoutMemory():
            model = Qwen2_5_VLModel(config)
        fill(model, component, device=HOST if on_host else device, dtype=dtype, published=published_name)
        encoder = cls(model, _load_tokenizer(tokenizer), device)
        encoder._check_tokenizer(tokenizer)
        if on_host:
            lend_from_host(encoder.pieces(), device)
            for part in model.modules():
                for name, buffer in part.named_buffers(recurse=False):
                    setattr(part, name, buffer.to(device))
        return encoder

    def pieces(self) -> list[nn.Module]:
        """All that has weights, as it is called; save for the embedding, which is looked up where it lies."""
        language, vision = self._model.language_model, self._model.visual
        return [*language.layers, language.norm, vision.patch_embed, *vision.blocks, vision.merger]

    def look(self, seen: Seen) -> Tensor:
        """What the vision tower makes of the pictures, [merged patches, hidden]: the same for every prompt."""
        grids = torch.tensor([(1, *grid) for grid in seen.grids], device=self._device)
        patches = seen.patches.to(self._device, self._model.dtype)
        features: Tensor = self._model.visual(patches, grid_thw=grids).pooler_output
        return features

    def encode(self, prompt: str, features: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """The hidden states after the last norm, [1, tokens, hidden], without those of the fixed prefix."""
        ids = self.tokenize(prompt, grids)
        positions = rope_positions([token == self._image_token for token in ids], grids)
        tokens = torch.tensor(ids)
        embed = self._model.language_model.embed_tokens
        embedded = embed(tokens.to(embed.weight.device)).to(self._device)
        embedded[(tokens == self._image_token).to(self._device)] = features.to(embedded.dtype)
        hidden: Tensor = self._model.language_model(
            inputs_embeds=embedded[None], position_ids=positions[:, None].to(self._device), use_cache=False
        ).last_hidden_state
        return hidden[:, DROPPED_TOKENS:]

    def tokenize(self, prompt: str, grids: Sequence[tuple[int, int]]) -> list[int]:
        """The whole conversation. What a prompt spells like a special token is read as plain letters."""
        pictures = "".join(PICTURE.format(number) for number in range(1, len(grids) + 1))
        ids = self._ids(PREFIX + pictures)
        # From the last picture on, so that the places found before stay true.
        places = [place for place, token in enumerate(ids) if token == self._image_token]
        for place, (rows, columns) in reversed(list(zip(places, grids, strict=True))):
            ids[place : place + 1] = [self._image_token] * (rows * columns // MERGE**2)
        return [*ids, *self._ids(prompt, split_special_tokens=True), *self._ids(SUFFIX)]

    def _ids(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, **options)["input_ids"]
        return ids

    def _check_tokenizer(self, folder: Path) -> None:
        found = self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if found != self._image_token:
            raise BadCheckpoint(
                f"{folder}: {IMAGE_TOKEN} is {found}, but text_encoder/config.json says {self._image_token}"
            )
        if (count := len(self._ids(PREFIX))) != DROPPED_TOKENS:
            raise BadCheckpoint(f"{folder}: the fixed prefix of a prompt is {count} tokens, not {DROPPED_TOKENS}")


def published_name(parameter: str) -> str:
    """A parameter of `Qwen2_5_VLModel` by the name the published shards have for it."""
    if parameter.startswith("language_model."):
        return "model." + parameter.removeprefix("language_model.")
    return parameter


def rope_positions(is_image: Sequence[bool], grids: Sequence[tuple[int, int]]) -> Tensor:
    """Time, row and column of every token, [3, tokens]: text counts up in all three, a picture spreads over a grid.

    After a picture text goes on from its longer side. transformers makes these only for callers that mark image tokens;
    without them a picture's patches would be read as a line of text.
    """
    parts, start, grid = [], 0, iter(grids)
    for image, run in groupby(is_image):
        length = len(list(run))
        if image:
            rows, columns = (side // MERGE for side in next(grid))
            spread = torch.cartesian_prod(torch.tensor([0]), torch.arange(rows), torch.arange(columns))
            parts.append(spread.T + start)
            start += max(rows, columns)
        else:
            parts.append(torch.arange(start, start + length).expand(3, -1))
            start += length
    return torch.cat(parts, dim=1)


def _load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    try:
        return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # its own library raises nothing narrower
        raise BadCheckpoint(f"{folder} can't be read as a tokenizer: {error}") from error
