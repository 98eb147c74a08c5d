"""What a checkpoint takes, part by part, and what an edit takes beside it: from the configs alone.

Working memory is counted in values, to be multiplied by the bytes of the dtype computed in. The factors are the most
values alive at once, counted on torch's meta device at the published size and rounded up. They leave out what kernels
take for themselves (`SLACK`, and the context in the plan).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from darkroom.checkpoint.declaration import TOKEN_PX, WorkingSizes
from darkroom.checkpoint.layout import PARTS, Component
from darkroom.checkpoint.tensors import needed_tensors


class Part(StrEnum):
    """What is placed as one.

    BLOCKS and KEPT_EXACT are the blocks' matrices: those that the fast tier has in float8, and those that it leaves
    (`mlp.net.2` of both streams, which float8 does not suit, and the last block's queries, keys and values, multiplied
    apart).
    STORED is what LoRAs are merged from, where that is not what the blocks compute with: the former's in the fast tier,
    both on a CPU, which has them packed. RUN_COPY is of the whole transformer, since some LoRAs change all of it;
    NEXT_COPY, for the next job's, of the blocks' matrices, all that most of them change. BESIDE is of LoRAs for which
    there is no run copy.
    """

    BLOCKS = "transformer blocks"
    KEPT_EXACT = "blocks' matrices kept exact"
    MODULATION = "modulation"
    REST = "rest of the transformer"
    TEXT_ENCODER = "text encoder"
    VAE = "VAE"
    STORED = "blocks as stored, to merge from"
    RUN_COPY = "run copy"
    NEXT_COPY = "run copy for the next job"
    BESIDE = "LoRAs beside the blocks"


PROMPTS = 2
"""With guidance, prompt and negative prompt, which are encoded in one batch."""
BESIDE_RANKS = 128
"""Of all LoRAs of one edit together, where they run beside the weights: most are of rank 16 to 64."""
BATCHED_TOKENS = 4096
"""Up to so many image tokens, of both prompts' passes, the passes through the transformer are one batch."""

VISION_TOKEN_PX = 28

TRANSFORMER_WIDTHS = 16
"""Of the transformer's width, for a token: the most is alive while queries and keys are rotated in float32."""
TEXT_INTERMEDIATES, TEXT_WIDTHS = 3, 5
"""Of the text encoder's MLP and of its width, for a token."""
VAE_WIDTHS = 4
"""Of the VAE's first width, for a pixel: a residual block's three, and one that a convolution takes for itself."""
SLACK = 1.15
"""What the allocator holds in pieces of the wrong size, and sides rounded up to multiples of 32."""

_BLOCK_MATRIX = re.compile(r"transformer_blocks\.\d+\.(attn\.(to|add)_|(img|txt)_mlp\.).*weight")
_LEFT = r"transformer_blocks\.(\d+\.(img|txt)_mlp\.net\.2|{last}\.attn\.(to_[qkv]|add_[qkv]_proj))\.weight"
_MODULATION = re.compile(r"transformer_blocks\.\d+\.(img|txt)_mod\.1\.")
_PIECE = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Largest:
    """The largest edit that there must be room for. prompt_tokens: of the longest prompt, at a token a character."""

    pictures: int = 3
    prompt_tokens: int = 5000
    steps: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """parameters: of each part. pieces: of a part's largest layer or block, which is how much moves at a time. rows: of
    the matrices in BLOCKS together; in float8 each has a scale.

    dim: the transformer's width. hidden, intermediate: the text encoder's, and its MLP's. base: the VAE's first width.
    """

    parameters: Mapping[Part, int]
    pieces: Mapping[Part, int]
    rows: int
    layers: int
    dim: int
    hidden: int
    intermediate: int
    base: int
    sizes: WorkingSizes
    largest: Largest = Largest()

    @classmethod
    def read(cls, configs: Mapping[str, Mapping[str, Any]], sizes: WorkingSizes) -> "Needs":
        """configs: each part's config.json, by the part's name. Raises `BadCheckpoint`."""
        transformer, text, vae = (
            needed_tensors(Component(name=name, class_name=PARTS[name], config=configs[name], tensors={}))
            for name in ("transformer", "text_encoder", "vae")
        )
        layers = configs["transformer"]["num_layers"]
        split: dict[Part, dict[str, int]] = {part: {} for part in Part}
        for name, shape in transformer.items():
            split[_part(name, last=layers - 1)][name] = math.prod(shape)
        split[Part.TEXT_ENCODER] = {name: math.prod(shape) for name, shape in text.items()}
        split[Part.VAE] = {name: math.prod(shape) for name, shape in vae.items()}
        split[Part.STORED] = split[Part.NEXT_COPY] = split[Part.BLOCKS] | split[Part.KEPT_EXACT]
        split[Part.RUN_COPY] = split[Part.NEXT_COPY] | split[Part.MODULATION] | split[Part.REST]
        parameters = {part: sum(split[part].values()) for part in Part}
        # A matrix of [out, in] takes so many values for each rank; what is no matrix of a block is merged into a copy.
        widths = sum(sum(shape) for name, shape in transformer.items() if _takes_lora_beside(name, shape))
        parameters[Part.BESIDE] = BESIDE_RANKS * widths + parameters[Part.REST]
        return cls(
            parameters=parameters,
            pieces={part: _largest_piece(split[part].items()) for part in Part},
            rows=sum(transformer[name][0] for name in split[Part.BLOCKS]),
            layers=layers,
            dim=transformer["img_in.weight"][0],
            hidden=text["model.embed_tokens.weight"][1],
            intermediate=text["model.layers.0.mlp.up_proj.weight"][0],
            base=vae["encoder.conv_in.weight"][0],
            sizes=sizes,
        )

    @property
    def text_tokens(self) -> int:
        """Of a prompt and of the pictures as the text encoder sees them."""
        seen = self.largest.pictures * (self.sizes.condition_area_px // VISION_TOKEN_PX**2)
        return self.largest.prompt_tokens + seen

    @property
    def image_tokens(self) -> int:
        """Of the result and of the references."""
        return (self.sizes.output_area_px + self.largest.pictures * self.sizes.vae_area_px) // TOKEN_PX**2

    @property
    def encode_values(self) -> int:
        """Of both prompts: text tokens · (3 · intermediate + 5 · hidden)."""
        return PROMPTS * self.text_tokens * (TEXT_INTERMEDIATES * self.intermediate + TEXT_WIDTHS * self.hidden)

    @property
    def denoise_values(self) -> int:
        """(text + image tokens) · 16 · dim, of both prompts where their passes are one batch; and the modulation of all
        steps, layers · 2 · 6 · steps · dim."""
        prompts = PROMPTS if PROMPTS * self.image_tokens <= BATCHED_TOKENS else 1
        tokens = prompts * (self.text_tokens + self.image_tokens)
        return self.dim * (TRANSFORMER_WIDTHS * tokens + self.layers * 2 * 6 * self.largest.steps)

    @property
    def code_values(self) -> int:
        """All references into latents, or latents into the result: pixels · 4 · base."""
        references_px = self.largest.pictures * self.sizes.vae_area_px
        return VAE_WIDTHS * self.base * max(self.sizes.output_area_px, references_px)

    def working_values(self, streamed: Iterable[Part]) -> int:
        """The most an edit has alive at once, in any stage. Of a part that is streamed in the device holds two pieces:
        one is computed with while the next one comes."""
        moving = {part: 2 * self.pieces[part] for part in streamed}
        text = moving.pop(Part.TEXT_ENCODER, 0)
        stages = (self.encode_values + text, self.denoise_values, self.code_values, *moving.values())
        return math.ceil(SLACK * max(stages))


def _part(name: str, *, last: int) -> Part:
    """Of a tensor of the transformer. last: the number of its last block."""
    if re.match(_LEFT.format(last=last), name):
        return Part.KEPT_EXACT
    if _BLOCK_MATRIX.match(name):
        return Part.BLOCKS
    return Part.MODULATION if _MODULATION.match(name) else Part.REST


def _takes_lora_beside(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and bool(_BLOCK_MATRIX.match(name) or _MODULATION.match(name))


def _largest_piece(counts: Iterable[tuple[str, int]]) -> int:
    """Tensors of one numbered layer are a piece; those outside of layers are not streamed but read where they lie."""
    pieces: dict[str, int] = {}
    for name, count in counts:
        if layer := _PIECE.match(name):
            pieces[layer[1]] = pieces.get(layer[1], 0) + count
    return max(pieces.values(), default=0)
