import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.published import PUBLISHED
from darkroom.engine.denoise import BATCHED_TOKENS
from darkroom.engine.linear import OUTLIERS, reform
from darkroom.engine.rope import Rope
from darkroom.engine.transformer import Joint, Transformer, TransformerConfig
from darkroom.errors import BadCheckpoint
from darkroom.memory import needs as module
from darkroom.memory.needs import Largest, Needs, Part

CONFIGS = PUBLISHED["Qwen/Qwen-Image-Edit-2509"]
PUBLISHED_NEEDS = Needs.read(CONFIGS, WorkingSizes())


class Peak(TorchDispatchMode):
    """Counts the bytes of all storages alive at once that operations under it have made."""

    def __init__(self):
        super().__init__()
        self.alive_bytes = self.peak_bytes = 0
        self._counted = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        if storage._cdata not in self._counted:
            self._counted.add(storage._cdata)
            self.alive_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, address, size_bytes):
        self._counted.discard(address)
        self.alive_bytes -= size_bytes


def test_the_published_parts():
    """At published size: 6.8 of the transformer's 20.4 G parameters are modulation, the parts add up to all tensors,
    and the text encoder's head is not counted."""
    counts = PUBLISHED_NEEDS.parameters
    transformer = (Part.BLOCKS, Part.KEPT_EXACT, Part.MODULATION, Part.REST)
    assert counts[Part.MODULATION] == 6_796_984_320
    assert counts[Part.KEPT_EXACT] == (60 * 8 + 6) * 3072 * 3072
    assert sum(counts[part] for part in transformer) == 20_430_401_088
    assert counts[Part.TEXT_ENCODER] == 8_292_166_656 - 152064 * 3584
    assert counts[Part.VAE] == 126_892_531
    assert counts[Part.RUN_COPY] == 20_430_401_088
    assert counts[Part.NEXT_COPY] == counts[Part.STORED] == 60 * 24 * 3072 * 3072
    assert counts[Part.NEXT_COPY] == counts[Part.BLOCKS] + counts[Part.KEPT_EXACT]


def test_loras_beside_the_matrices():
    """A rank takes inputs and outputs of each matrix: 12 of attention and MLP in each block, and two of modulation."""
    parameters = PUBLISHED_NEEDS.parameters
    assert parameters[Part.BESIDE] == 128 * 60 * 50 * 3072 + parameters[Part.REST]


def test_a_part_moves_by_its_largest_layer():
    """What is streamed moves a layer or a block at a time; the embedding, which is none, is not moved."""
    dim, hidden, intermediate, narrow = 3072, 3584, 18944, 512
    layer = 2 * hidden * hidden + 2 * hidden * narrow + 3 * hidden * intermediate + hidden + 2 * narrow + 2 * hidden
    assert PUBLISHED_NEEDS.pieces[Part.MODULATION] == 2 * (6 * dim * dim + 6 * dim)
    assert PUBLISHED_NEEDS.pieces[Part.TEXT_ENCODER] == layer


@pytest.mark.parametrize("zero_cond_t", [False, True])
@pytest.mark.parametrize(("pictures", "prompt_tokens"), [(1, 10), (3, 512), (3, 5000)])
def test_a_pass_of_the_engine_keeps_within_what_is_counted(zero_cond_t, pictures, prompt_tokens):
    """The transformer at published width has no more values alive than counted for the same tokens, nor far fewer."""
    largest = Largest(pictures=pictures, prompt_tokens=prompt_tokens, steps=0)
    counted = replace(PUBLISHED_NEEDS, largest=largest)
    config, result_tokens = TransformerConfig(num_layers=3, zero_cond_t=zero_cond_t), 64 * 64
    tokens = counted.text_tokens + counted.image_tokens
    widths = {
        "latents": (result_tokens, config.in_channels),
        "references": (counted.image_tokens - result_tokens, config.dim),
        "text": (counted.text_tokens, config.dim),
    }
    with torch.device("meta"):
        transformer = Transformer(config).to(torch.bfloat16).requires_grad_(requires_grad=False)
        rope = Rope(cos=torch.empty(tokens, 64), sin=torch.empty(tokens, 64))
        inputs = {name: torch.empty(1, *shape, dtype=torch.bfloat16) for name, shape in widths.items()}
        modulation = transformer.modulation([1.0]).at(0)
    joint = Joint(text_tokens=(counted.text_tokens,), ropes=(rope,), result_tokens=result_tokens)
    with torch.inference_mode(), Peak() as peak:
        transformer(**inputs, modulation=modulation, joint=joint)
    assert 0.7 * counted.denoise_values < peak.peak_bytes / torch.bfloat16.itemsize <= counted.denoise_values


def test_passes_are_one_batch_where_the_engine_has_them_so():
    """Up to the engine's own bound both prompts' passes are counted, above it the larger one."""
    assert module.BATCHED_TOKENS == BATCHED_TOKENS
    at, above = (
        replace(PUBLISHED_NEEDS, sizes=WorkingSizes(output_area_px=px, vae_area_px=0), largest=Largest(steps=0))
        for px in (256 * BATCHED_TOKENS // 2, 256 * (BATCHED_TOKENS // 2 + 1))
    )
    assert at.denoise_values > 1.9 * above.denoise_values


def test_more_pictures_and_larger_ones_take_more():
    """Working memory grows with the areas and with the number of pictures."""
    one = replace(PUBLISHED_NEEDS, largest=Largest(pictures=1))
    larger = replace(PUBLISHED_NEEDS, sizes=WorkingSizes(output_area_px=2 * 1024**2))
    assert one.working_values(()) < PUBLISHED_NEEDS.working_values(()) < larger.working_values(())


def test_a_tiny_model_is_ruled_by_what_moves():
    """Where an edit takes next to nothing, two layers of the streamed text encoder are what counts."""
    small = replace(
        PUBLISHED_NEEDS, sizes=WorkingSizes(output_area_px=0, vae_area_px=0), dim=1, hidden=1, intermediate=1
    )
    assert small.working_values([Part.TEXT_ENCODER]) >= 2 * PUBLISHED_NEEDS.pieces[Part.TEXT_ENCODER]


def test_a_config_that_lacks_an_entry():
    """What can't be counted is told as the checkpoint's fault."""
    with pytest.raises(BadCheckpoint, match=r"vae/config\.json: base_dim is missing"):
        Needs.read({**CONFIGS, "vae": {}}, WorkingSizes())


def test_the_fast_tier_has_in_float8_what_the_engine_brings_to_it():
    """As many parameters as the engine replaces; those that narrow either stream's MLP, norms and biases are not among
    them."""
    replaced = []

    def form(stored):
        replaced.append(stored.weight.numel())
        return stored

    with torch.device("meta"):
        blocks = Transformer(TransformerConfig()).blocks
    for block in blocks:
        reform(block, form, leave=OUTLIERS, last=block is blocks[-1])
    assert PUBLISHED_NEEDS.parameters[Part.BLOCKS] == sum(replaced)
    assert module._part("transformer_blocks.59.txt_mlp.net.0.proj.weight", last=59) == Part.BLOCKS
    assert module._part("transformer_blocks.58.txt_mlp.net.2.weight", last=59) == Part.KEPT_EXACT
    assert module._part("transformer_blocks.58.attn.to_q.weight", last=59) == Part.BLOCKS
    assert module._part("transformer_blocks.59.attn.to_q.weight", last=59) == Part.KEPT_EXACT
    assert module._part("transformer_blocks.7.attn.norm_added_q.weight", last=59) == Part.REST
    assert module._part("transformer_blocks.7.attn.to_out.0.bias", last=59) == Part.REST
