"""Every layout leads to the same canonical file, and nothing in a file goes unread."""

import json
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from darkroom.checkpoint.published import TRANSFORMER
from darkroom.checkpoint.weights import BITS
from darkroom.errors import (
    LoraError,
    LoraHeaderInvalid,
    LoraInconsistent,
    LoraNotLora,
    LoraRankInvalid,
    LoraShapeMismatch,
    LoraUnsupported,
    LoraWrongModel,
)
from darkroom.lora.convert import convert
from darkroom.lora.header import Entry, Header, read_header
from darkroom.lora.keys import PARTS
from darkroom.lora.modules import Modules
from darkroom.lora.survey import survey
from loras import LAYOUTS, MODULES, Layout, dotted, make_pairs, save, targets

BLOCK = "transformer_blocks.1."
Q = f"{BLOCK}attn.to_q"
PLAIN = dotted("transformer.", "lora_A.weight", "lora_B.weight")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_read_whole(tmp_path, layout: Layout) -> None:
    """Published names, the values bit for bit, alpha over rank beside them; ranks may differ from module to module."""
    pairs = make_pairs(ranks=(2, 4, 8))
    convert(save(tmp_path / "file", layout.write(pairs)), tmp_path / "canonical", MODULES)
    tensors = load_file(tmp_path / "canonical")
    assert tensors.keys() == {f"{name}.lora_{side}.weight" for name in pairs for side in "AB"}
    for name, (a, b) in pairs.items():
        assert torch.equal(tensors[f"{name}.lora_A.weight"], a)
        assert torch.equal(tensors[f"{name}.lora_B.weight"], b)
    scales = json.loads(read_header(tmp_path / "canonical").metadata["scales"])
    assert scales == {name: 1.0 if layout.alpha is None else layout.alpha / len(a) for name, (a, _) in pairs.items()}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_named(tmp_path, layout: Layout) -> None:
    """By whose names its keys are."""
    found = survey(read_header(save(tmp_path / "file", layout.write(make_pairs()))), MODULES)
    assert (found.layouts, found.problems) == ((layout.named,), ())
    assert len(found.terms) == len(targets())


def test_flat_names_are_unambiguous_at_full_size() -> None:
    """Of the published model's modules, no two are the same once dots are underscores, and each is found."""
    modules = Modules.read(TRANSFORMER)
    for name in modules.names:
        place = modules.find(f"lora_unet_{name.replace('.', '_')}")
        assert place is not None
        assert place.modules == (name,)


def test_two_modules_of_one_flat_name_are_refused() -> None:
    """A model for which underscored names would be ambiguous is noticed, not guessed at."""
    with pytest.raises(ValueError, match="underscores"):
        Modules({"a.b.weight": (1, 1), "a_b.weight": (1, 1)})


def pair(path: str, rows: int = 64, columns: int = 64, rank: int = 2) -> dict[str, torch.Tensor]:
    return {f"{path}.lora_A.weight": torch.ones(rank, columns), f"{path}.lora_B.weight": torch.ones(rows, rank)}


def kronecker(path: str, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {f"{path}.{name}": torch.ones(shape) for name, shape in shapes.items()}


T = f"transformer.{Q}"
REFUSED = {
    "FLUX": (pair("lora_unet_double_blocks_0_img_attn_qkv"), LoraWrongModel, "FLUX"),
    "FLUX in diffusers": (pair("transformer.single_transformer_blocks.0.attn.to_q"), LoraWrongModel, "FLUX"),
    "HunyuanVideo": (pair("transformer.double_blocks.0.img_attn_qkv"), LoraWrongModel, "HunyuanVideo"),
    "SDXL": (pair("lora_unet_input_blocks_4_1_proj_in"), LoraWrongModel, "Stable Diffusion"),
    "SD in diffusers": (pair("unet.down_blocks.0.attentions.0.proj_in"), LoraWrongModel, "Stable Diffusion"),
    "SD 3": (pair("transformer.transformer_blocks.0.ff_context.net.2"), LoraWrongModel, "Stable Diffusion 3"),
    "Wan": (pair("diffusion_model.blocks.0.self_attn.q"), LoraWrongModel, "Wan"),
    "Wan by kohya": (pair("lora_unet_blocks_0_self_attn_q"), LoraWrongModel, "Wan"),
    "an unknown model": (pair("transformer.mixers.0.q"), LoraWrongModel, "does not fit this model"),
    "one block too many": (
        PLAIN(make_pairs())[0] | pair("transformer.transformer_blocks.3.attn.to_q"),
        LoraWrongModel,
        "2 of 96 tensors belong to nothing",
    ),
    "a text encoder's": (
        PLAIN(make_pairs())[0] | pair("text_encoder.layers.0.q_proj"),
        LoraUnsupported,
        "text encoder",
    ),
    "a text encoder's by kohya": (pair("lora_te_text_model_0_q"), LoraUnsupported, "text encoder"),
    "a language model's": (pair("base_model.model.model.layers.0.self_attn.q_proj"), LoraUnsupported, "text encoder"),
    "DoRA": (pair(T) | {f"{T}.dora_scale": torch.ones(64, 1)}, LoraUnsupported, r"DoRA \(1 of 3 tensors"),
    "DoRA by PEFT": (pair(T) | {f"{T}.lora_magnitude_vector": torch.ones(64)}, LoraUnsupported, "DoRA"),
    "OFT": ({f"{T}.oft_blocks": torch.ones(2, 4, 4)}, LoraUnsupported, "OFT"),
    "Tucker": (kronecker(T, lokr_t2=(2, 2, 1, 1)), LoraUnsupported, "Tucker"),
    "whole weights beside": (
        pair(T) | {"transformer.img_in.weight": torch.ones(64, 64)},
        LoraUnsupported,
        "whole weights",
    ),
    "integers": (pair(T) | {f"{T}.lora_A.weight": torch.ones(2, 64, dtype=torch.int8)}, LoraUnsupported, "I8"),
    "two kinds": (pair(T) | kronecker(T, lokr_w1=(8, 8), lokr_w2=(8, 8)), LoraUnsupported, "LoRA and a LoKr"),
    "a checkpoint": ({"img_in.weight": torch.ones(64, 64), "x": torch.ones(1)}, LoraNotLora, "None of its 2"),
    "FLUX itself": ({"double_blocks.0.img_attn.qkv.weight": torch.ones(1)}, LoraNotLora, "like those of FLUX"),
    "nothing": ({}, LoraNotLora, "None of its 0"),
    "A without B": ({f"{T}.lora_A.weight": torch.ones(2, 64)}, LoraInconsistent, "without its lora_B.weight"),
    "B without A": ({f"{T}.lora_B.weight": torch.ones(64, 2)}, LoraInconsistent, "without its lora_A.weight"),
    "a factor missing": (kronecker(T, lokr_w1=(8, 8), lokr_w2_a=(8, 2)), LoraInconsistent, "lokr_w2_b"),
    "alpha alone": ({f"{T}.alpha": torch.tensor(1.0)}, LoraInconsistent, "without the matrices"),
    "twice": (pair(T) | pair(f"diffusion_model.{Q}"), LoraInconsistent, "for the same place"),
    "fused and by itself": (pair(T) | pair(f"transformer.{BLOCK}attn.to_qkv", rows=192), LoraInconsistent, "fused"),
    "LoKr whole and in factors": (
        kronecker(T, lokr_w1=(8, 8), lokr_w2=(8, 8), lokr_w2_a=(8, 2)),
        LoraInconsistent,
        "factors",
    ),
    "rank 0": (pair(T, rank=0), LoraRankInvalid, "rank 0"),
    "absurd rank": (pair(T, rank=65), LoraRankInvalid, "rank 65"),
    "ranks that differ": (pair(T) | {f"{T}.lora_B.weight": torch.ones(64, 3)}, LoraShapeMismatch, "ranks differ"),
    "another width": (pair(T, columns=128), LoraShapeMismatch, "make 64×128; .* is 64×64"),
    "a convolution's": (pair(T) | {f"{T}.lora_A.weight": torch.ones(2, 64, 1, 1)}, LoraShapeMismatch, "a matrix"),
    "alpha of two": (pair(T) | {f"{T}.alpha": torch.ones(2)}, LoraShapeMismatch, "single number"),
    "a fused matrix of odd rows": (pair(f"transformer.{BLOCK}attn.to_qkv", rows=64), LoraShapeMismatch, "3 modules"),
    "a norm by matrices": (pair(f"transformer.{BLOCK}attn.norm_q"), LoraShapeMismatch, "no matrix"),
    "another difference": ({f"{T}.diff": torch.ones(64)}, LoraShapeMismatch, "is 64×64"),
    "a bias that isn't there": ({"transformer.txt_norm.diff_b": torch.ones(64)}, LoraShapeMismatch, "no such tensor"),
    "LoKr of another size": (kronecker(T, lokr_w1=(8, 8), lokr_w2=(8, 4)), LoraShapeMismatch, "64×32"),
    "LoHa of another size": (
        kronecker(T, hada_w1_a=(64, 2), hada_w1_b=(2, 64), hada_w2_a=(64, 2), hada_w2_b=(2, 32)),
        LoraShapeMismatch,
        "64×32",
    ),
}


@pytest.mark.parametrize(("tensors", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path, tensors, kind: type[LoraError], words: str) -> None:
    """With an error of its own that names what is at fault, and with no file left behind."""
    path = save(tmp_path / "file", (tensors, {}))
    with pytest.raises(kind, match=words):
        convert(path, tmp_path / "canonical", MODULES)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_the_gravest_problem_comes_first(tmp_path) -> None:
    """A file for another model is refused as such, whatever else is wrong with it; the others are listed too."""
    tensors = pair("lora_unet_double_blocks_0_img_attn_qkv") | REFUSED["DoRA"][0] | REFUSED["twice"][0]
    found = survey(read_header(save(tmp_path / "file", (tensors, {}))), MODULES)
    assert [type(problem) for problem in found.problems] == [
        LoraWrongModel,
        LoraUnsupported,
        LoraInconsistent,
        LoraInconsistent,
    ]


PATHS = st.sampled_from(
    [Q, f"transformer.{Q}", f"{BLOCK}attn.to_qkv", "lora_unet_txt_norm", "double_blocks.0", "", "x"]
)
ENDS = st.sampled_from(
    [*(part for parts in PARTS.values() for part in parts), "alpha", "rank", "dora_scale", "weight", "lora_A", ""]
)
ENTRIES = st.tuples(st.lists(st.integers(0, 64), max_size=3), st.sampled_from(["F32", "I64", "I8", "F4"]))


@given(tensors=st.dictionaries(st.builds("{}.{}".format, PATHS, ENDS) | st.text(), ENTRIES, max_size=8))
def test_any_tensors_are_surveyed(tensors: dict[str, tuple[list[int], str]]) -> None:
    """Nothing is raised; and a survey without problems has put every tensor into a term."""
    entries = {
        key: Entry(key=key, dtype=dtype, shape=tuple(shape), begin=0, end=prod(shape) * BITS[dtype] // 8)
        for key, (shape, dtype) in tensors.items()
    }
    found = survey(Header(entries=entries, metadata={}, data_begin=0, size_bytes=0), MODULES)
    if not found.problems:
        used = {stored.key for term in found.terms for stored in term.parts.values()}
        numbers = {each.key for term in found.terms for each in (term.alpha, term.stated_rank) if each is not None}
        assert used | numbers == tensors.keys()


@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("{", LoraHeaderInvalid),
        ('{"r": 0, "lora_alpha": 1}', LoraHeaderInvalid),
        ('{"r": 4, "lora_alpha": Infinity}', LoraHeaderInvalid),
        ('{"r": 4, "lora_alpha": 1, "rank_pattern": {"(a+)+$": 8}}', LoraUnsupported),
    ],
)
def test_a_note_that_can_not_be_read_is_refused(tmp_path, note: str, kind: type[LoraError]) -> None:
    """PEFT's note in the header is no more trusted than the rest."""
    tensors, _ = PLAIN(make_pairs())
    with pytest.raises(kind, match="header"):
        convert(save(tmp_path / "file", (tensors, {"lora_adapter_metadata": note})), tmp_path / "canonical", MODULES)


def test_an_error_names_the_parameter() -> None:
    """Whoever knows the request's parameter puts it before the message, and the error stays of its kind."""
    error = LoraWrongModel("It is a LoRA for Wan").at("lora_2_url")
    assert type(error) is LoraWrongModel
    assert (error.message, error.field) == ("lora_2_url: It is a LoRA for Wan", "lora_2_url")
