"""Adapters as tensors, and their plain sum."""

from pathlib import Path

import pytest
import torch

from darkroom.engine.adapter import Adapter, LowRank, load_adapter, merged_weights
from darkroom.lora.convert import convert
from darkroom.lora.header import read_header
from loras import LAYOUTS, MODULES, make_pairs, save

Q, TXT_IN = "transformer_blocks.0.attn.to_q", "txt_in"


def load(folder: Path, layout: str, **options) -> Adapter:
    convert(save(folder / "file", LAYOUTS[layout].write(make_pairs(**options))), folder / layout, MODULES)
    return load_adapter(folder / layout)


def test_an_adapter_is_loaded_as_it_is_stored(tmp_path) -> None:
    """By published parameter name: factors in the stored dtype, their scale beside them, and not a byte more."""
    pairs = make_pairs([Q, TXT_IN], dtype=torch.float16)
    adapter = load(tmp_path, "kohya", names=[Q, TXT_IN], dtype=torch.float16)
    assert adapter.keys() == {f"{Q}.weight", f"{TXT_IN}.weight"}
    (change,) = adapter[f"{Q}.weight"]
    assert isinstance(change, LowRank)
    assert torch.equal(change.a, pairs[Q][0])
    assert torch.equal(change.b, pairs[Q][1])
    assert change.scale == 0.75
    stored = read_header(tmp_path / "kohya")
    assert sum(change.size_bytes for found in adapter.values() for change in found) == (
        stored.size_bytes - stored.data_begin
    )


def test_what_is_not_canonical_is_not_loaded(tmp_path) -> None:
    """A file that was not converted has not been checked."""
    with pytest.raises(ValueError, match="darkroom adapter"):
        load_adapter(save(tmp_path / "file", LAYOUTS["bare"].write(make_pairs([Q]))))


def test_the_sum_is_rounded_once(tmp_path) -> None:
    """Several adapters on one weight are added in float32, each at its strength, and then rounded to its dtype."""
    first = load(tmp_path, "bare", names=[Q])
    second = load(tmp_path, "lightx2v", names=[Q, TXT_IN], seed=1)
    base = {name: torch.randn(MODULES.shapes[name]).bfloat16() for name in (f"{Q}.weight", f"{TXT_IN}.weight")}
    merged = merged_weights(base, [(first, 0.5), (second, -2.0)])
    total = base[f"{Q}.weight"].float()
    for (change,), strength in ((first[f"{Q}.weight"], 0.5), (second[f"{Q}.weight"], -2.0)):
        total = total + strength * change.scale * (change.b @ change.a)
    assert merged[f"{Q}.weight"].dtype == torch.bfloat16
    assert torch.allclose(merged[f"{Q}.weight"].float(), total, atol=0, rtol=2**-8)
    alone = merged_weights(base, [(second, -2.0)])
    assert torch.equal(merged[f"{TXT_IN}.weight"], alone[f"{TXT_IN}.weight"])


FUSED = {
    "LoRA": ({"lora_A.weight": (2, 64), "lora_B.weight": (192, 2)}, lambda f: f["lora_B.weight"] @ f["lora_A.weight"]),
    "LoHa": (
        {"hada_w1_a": (192, 2), "hada_w1_b": (2, 64), "hada_w2_a": (192, 2), "hada_w2_b": (2, 64)},
        lambda f: (f["hada_w1_a"] @ f["hada_w1_b"]) * (f["hada_w2_a"] @ f["hada_w2_b"]),
    ),
    "LoKr": ({"lokr_w1": (12, 8), "lokr_w2": (16, 8)}, lambda f: torch.kron(f["lokr_w1"], f["lokr_w2"])),
    "LoKr in factors": (
        {"lokr_w1_a": (12, 2), "lokr_w1_b": (2, 8), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 8)},
        lambda f: torch.kron(f["lokr_w1_a"] @ f["lokr_w1_b"], f["lokr_w2_a"] @ f["lokr_w2_b"]),
    ),
    "difference": ({"diff": (192, 64)}, lambda f: f["diff"]),
}


@pytest.mark.parametrize(("shapes", "whole"), FUSED.values(), ids=FUSED)
def test_a_fused_change_is_split_by_rows(tmp_path, shapes, whole) -> None:
    """What a file keeps for queries, keys and values as one matrix is each one's third of the whole change."""
    factors = {part: torch.randn(shape) for part, shape in shapes.items()}
    tensors = {f"transformer_blocks.0.attn.to_qkv.{part}": value for part, value in factors.items()}
    convert(save(tmp_path / "file", (tensors, {})), tmp_path / "canonical", MODULES)
    adapter = load_adapter(tmp_path / "canonical")
    parts = [adapter[f"transformer_blocks.0.attn.{name}.weight"][0].delta() for name in ("to_q", "to_k", "to_v")]
    assert torch.allclose(torch.cat(parts), whole(factors), atol=1e-5)


def test_nothing_merged_is_nothing_changed(tmp_path) -> None:
    """At strength 0 every touched weight is its own again, bit for bit."""
    adapter = load(tmp_path, "ComfyUI", names=[Q])
    base = {f"{Q}.weight": torch.randn(64, 64)}
    assert torch.equal(merged_weights(base, [(adapter, 0.0)])[f"{Q}.weight"], base[f"{Q}.weight"])
    assert merged_weights(base, []) == {}
