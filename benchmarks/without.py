"""Each optimisation taken away from a loaded engine, from outside: the production code has no switches for it.

Every one is a context in which the given engine works without it. Work that is saved is done where that is simplest (a
second look at the pictures, its result dropped), else the work is done the way the reference does it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from diffusers import AutoencoderKLQwenImage
from torch import Tensor, nn

from benchmarks.work import MEMO_BYTES
from darkroom.engine import denoise, models, vae_model
from darkroom.engine.device import Precision
from darkroom.engine.engine import Engine
from darkroom.engine.kernels import EPS, PLAIN, Kernels
from darkroom.engine.memo import Memo
from darkroom.engine.transformer import Block, Joint, JointAttention, Transformer
from darkroom.engine.vae import Vae
from darkroom.engine.vae_model import UpConv


@contextmanager
def modulation_table(engine: Engine) -> Iterator[None]:
    """The modulation is computed at every step."""
    model = engine._models.transformer
    whole = model.modulation

    def anew(timesteps: Sequence[float]) -> SimpleNamespace:
        return SimpleNamespace(at=lambda step: whole(timesteps[step : step + 1]).at(0))

    with patch.object(model, "modulation", anew):
        yield


@contextmanager
def fused_projections(engine: Engine) -> Iterator[None]:
    """Queries, keys and values by a matrix each, of each stream."""
    blocks = engine._models.transformer.blocks[:-1]
    apart = {block.attn: [_thirds(block.attn, name) for name in ("to_qkv", "add_qkv_proj")] for block in blocks}

    def forward(self: JointAttention, image: Tensor, text: Tensor, joint: Joint) -> tuple[Tensor, Tensor]:
        image_third, text_third = (
            [torch.unflatten(third(x), -1, (self.heads, -1)) for third in thirds]
            for x, thirds in zip((image, text), apart[self], strict=True)
        )
        gains = (
            ((self.norm_added_q.weight,), (self.norm_q.weight,)),
            ((self.norm_added_k.weight,), (self.norm_k.weight,)),
        )
        image_mixed, text_mixed, start = [], [], 0
        for index, (tokens, rope) in enumerate(zip(joint.text_tokens, joint.ropes, strict=True)):
            own_text = [third[0, start : start + tokens] for third in text_third]
            own_image = [third[index] for third in image_third]
            query, key = (
                self.kernels.joined(own_text[n][:, None], own_image[n][:, None], *gains[n], rope.cos, rope.sin)[0]
                for n in range(2)
            )
            mixed = self.kernels.attend(query, key, torch.cat([own_text[2], own_image[2]]))
            image_mixed.append(mixed[tokens:])
            text_mixed.append(mixed[:tokens])
            start += tokens
        return self.to_out[0](torch.stack(image_mixed)), self.to_add_out(torch.cat(text_mixed)[None])

    with patch.object(JointAttention, "forward", forward):
        yield


def _thirds(attention: JointAttention, name: str) -> list[nn.Module]:
    """A projection's three matrices, in the form it is multiplied in."""
    whole = getattr(attention, name)
    weight = whole.weight.to_dense() if whole.weight.is_mkldnn else whole.weight
    thirds = []
    for rows, bias in zip(weight.chunk(3), whole.bias.chunk(3), strict=True):
        stored = nn.Linear(*rows.shape[::-1], device="meta")
        stored.weight, stored.bias = (nn.Parameter(part.clone(), requires_grad=False) for part in (rows, bias))
        thirds.append(stored if type(whole) is nn.Linear else type(whole)(stored))
    return thirds


def _kernels(engine: Engine, plain: Callable[[Kernels], Kernels]) -> ExitStack:
    stack = ExitStack()
    for module in engine._models.transformer.modules():
        if isinstance(getattr(module, "kernels", None), Kernels):
            stack.enter_context(patch.object(module, "kernels", plain(module.kernels)))
    return stack


@contextmanager
def compiled_rotation(engine: Engine) -> Iterator[None]:
    """The norm and rotation of queries and keys as plain torch."""
    with _kernels(engine, lambda kernels: replace(kernels, joined=PLAIN.joined)):
        yield


@contextmanager
def compiled_gelu(engine: Engine) -> Iterator[None]:
    """GELU as torch has it."""
    with _kernels(engine, lambda kernels: replace(kernels, gelu=PLAIN.gelu)):
        yield


@contextmanager
def attention_by_products(engine: Engine) -> Iterator[None]:
    """Attention by torch's own kernel."""
    with _kernels(engine, lambda kernels: replace(kernels, attend=PLAIN.attend)):
        yield


@contextmanager
def modulation_in_the_norm(engine: Engine) -> Iterator[None]:
    """Layer norm without gains, then multiplied and added to; gate, multiply and add one after the other."""

    def modulated(x: Tensor, scale: Tensor, shift: Tensor, _first: int) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=EPS) * scale + shift

    def gated(x: Tensor, gate: Tensor, update: Tensor, _first: int) -> Tensor:
        return x + gate * update

    def gated_modulated(
        x: Tensor, gate: Tensor, update: Tensor, scale: Tensor, shift: Tensor, first: int
    ) -> tuple[Tensor, Tensor]:
        kept = gated(x, gate, update, first)
        return kept, modulated(kept, scale, shift, first)

    apart = {"modulated": modulated, "gated": gated, "gated_modulated": gated_modulated}
    with _kernels(engine, lambda kernels: replace(kernels, **apart)):
        yield


@contextmanager
def short_last_block(_engine: Engine) -> Iterator[None]:
    """The last block computes all tokens, of which the result's are read."""

    def result(self: Block, image: Tensor, text: Tensor, modulation: Any, joint: Joint) -> Tensor:
        return self(image, text, modulation, joint)[0][:, : joint.result_tokens]

    with patch.object(Block, "result", result):
        yield


@contextmanager
def references_embedded_once(engine: Engine) -> Iterator[None]:
    """As many tokens as the references' go through the transformer's first matrix at every step."""

    def embed(model: Transformer, args: tuple[Any, ...]) -> None:
        references = args[1]
        model.embed_image(references.new_zeros(*references.shape[:2], model.config.in_channels))

    hook = engine._models.transformer.register_forward_pre_hook(embed)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def both_prompts_at_once(_engine: Engine) -> Iterator[None]:
    """A pass for the prompt and a pass for the negative one."""
    with patch.object(denoise, "BATCHED_TOKENS", 0):
        yield


@contextmanager
def vision_tower_once(engine: Engine) -> Iterator[None]:
    """The pictures are looked at for each prompt."""
    text = engine._models.text
    look = text.look

    def twice(seen: Any) -> Tensor:
        look(seen)
        return look(seen)

    with patch.object(text, "look", twice):
        yield


@contextmanager
def no_head(engine: Engine) -> Iterator[None]:
    """The language model's head is run over all tokens, as the reference's class does."""
    model = engine._models.text._model.language_model
    embedding = model.embed_tokens.weight
    head = torch.randn(embedding.shape).to(embedding)

    def logits(_model: nn.Module, _args: object, output: Any) -> None:
        F.linear(output.last_hidden_state, head)

    hook = model.register_forward_hook(logits)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def two_dimensional_vae(engine: Engine, theirs: AutoencoderKLQwenImage) -> Iterator[None]:
    """The VAE as diffusers has it: kernels in three dimensions over a frame that is alone."""
    model = engine._models.vae._model

    def encode(pictures: Tensor, _strips: object) -> Tensor:
        return theirs.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0]

    def decode(latents: Tensor, _strips: object) -> Tensor:
        return theirs.decode(latents[:, :, None]).sample[:, :, 0]

    with patch.object(model, "encode", encode), patch.object(model, "decode", decode):
        yield


@contextmanager
def upsampling_in_one(engine: Engine, unfolded: Vae) -> Iterator[None]:
    """The decoder doubles its picture, then convolves it."""

    def forward(self: UpConv, x: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest-exact"), self.weight, self.bias, padding=1)

    with (
        patch.object(UpConv, "forward", forward),
        patch.object(engine, "_models", replace(engine._models, vae=unfolded)),
    ):
        yield


def unfolded(checkpoint: Path, dtype: Precision) -> Vae:
    """With the published kernels where the decoder goes to a higher resolution."""
    with patch.object(UpConv, "fold", lambda _: None):
        return Engine.load(checkpoint, device="cpu", dtype=dtype)._models.vae


@contextmanager
def channels_last(engine: Engine) -> Iterator[None]:
    """The VAE's weights and pictures channel by channel."""
    model = engine._models.vae._model
    kept = {parameter: parameter.data for parameter in model.parameters()}
    contiguous = Tensor.contiguous

    def planar(x: Tensor, **_format: object) -> Tensor:
        return contiguous(x)

    for parameter, data in kept.items():
        parameter.data = contiguous(data)
    with patch.object(Tensor, "contiguous", planar):
        try:
            yield
        finally:
            for parameter, data in kept.items():
                parameter.data = data


@contextmanager
def norm_in_bands(_engine: Engine) -> Iterator[None]:
    """The VAE's norms over a whole picture at once."""
    with patch.object(vae_model, "_BAND", 2**62):
        yield


@contextmanager
def packed_weights(engine: Engine, stored: Transformer) -> Iterator[None]:
    """The transformer's matrices as they are stored."""
    with patch.object(engine, "_models", replace(engine._models, transformer=stored)):
        yield


def unpacked(checkpoint: Path, dtype: Precision) -> Transformer:
    with patch.object(models, "can_pack", lambda *_: False):
        return Engine.load(checkpoint, device="cpu", dtype=dtype)._models.transformer


@contextmanager
def memo(engine: Engine) -> Iterator[None]:
    """Nothing is known from an earlier edit."""
    with patch.object(engine, "_memo", Memo(MEMO_BYTES)):
        yield
