"""The canonical file: values as they were, the same bytes every time, whole or not there at all."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from darkroom.errors import LoraHeaderInvalid, LoraInconsistent, LoraNotFinite
from darkroom.lora import convert as converting
from darkroom.lora.convert import FORMAT, convert
from darkroom.lora.header import parse_header, read_header
from darkroom.lora.values import to_number
from loras import LAYOUTS, MODULES, make_pairs, save, targets

Q = "transformer_blocks.0.attn.to_q"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
EIGHT_BITS = [torch.float8_e4m3fn, torch.float8_e5m2]


def canonical(tmp_path, tensors, metadata=None):
    convert(save(tmp_path / "file", (tensors, metadata or {})), tmp_path / "canonical", MODULES)
    return load_file(tmp_path / "canonical")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_values_stay_exact(tmp_path, dtype) -> None:
    """Each in the dtype it was stored in; 8-bit floats in bfloat16, which holds all of them."""
    pairs = make_pairs([Q], dtype=dtype)
    tensors = canonical(tmp_path, LAYOUTS["ComfyUI"].write(pairs)[0])
    for side, value in zip("AB", pairs[Q], strict=True):
        kept = tensors[f"{Q}.lora_{side}.weight"]
        assert kept.dtype == (torch.bfloat16 if dtype in EIGHT_BITS else dtype)
        assert torch.equal(kept.double(), value.double())


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_every_8_bit_float_is_widened_as_torch_does(tmp_path, dtype) -> None:
    """All codes that are finite numbers, zero's sign included."""
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    finite = codes[codes.float().isfinite()].repeat(64)[: 64 * 64].view(64, 64)
    kept = canonical(tmp_path, {f"{Q}.diff": finite})[f"{Q}.diff"]
    assert torch.equal(kept.view(torch.int16), finite.to(torch.bfloat16).view(torch.int16))


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        (name, bad)
        for name in DTYPES
        for bad in (math.nan, math.inf, -math.inf)
        if name != "F8_E4M3" or math.isnan(bad)  # it has no infinity
    ],
)
def test_what_is_not_finite_is_refused(tmp_path, dtype, bad) -> None:
    """By the tensor's name, wherever in it the value stands; nothing is left behind."""
    value = torch.zeros(64, 64)
    value[63, 63] = bad
    path = save(tmp_path / "file", ({f"{Q}.diff": value.to(DTYPES[dtype])}, {}))
    with pytest.raises(LoraNotFinite, match=f"{Q}.diff"):
        convert(path, tmp_path / "canonical", MODULES)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_the_largest_values_are_finite(tmp_path) -> None:
    """The check for infinity takes no number for one."""
    for dtype in DTYPES.values():
        value = torch.full((64, 64), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
        assert canonical(tmp_path, {f"{Q}.diff": value})[f"{Q}.diff"].isfinite().all()


def backwards(file: bytes) -> bytes:
    """The same tensors, last first, under other notes."""
    header = parse_header(file, len(file))
    document, data = {"__metadata__": {"notes": "others"}}, b""
    for name, entry in reversed(header.entries.items()):
        raw = file[header.data_begin + entry.begin : header.data_begin + entry.end]
        offsets = [len(data), len(data) + len(raw)]
        document[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_same_source_same_bytes(tmp_path) -> None:
    """The file is the same each time, whatever the order in which the source has its tensors."""
    path = save(tmp_path / "1", LAYOUTS["ComfyUI, fused"].write(make_pairs(dtype=torch.float16)))
    (tmp_path / "2").write_bytes(backwards(path.read_bytes()))
    written = []
    for name in ("1", "1", "2"):
        convert(tmp_path / name, tmp_path / "made", MODULES)
        written.append((tmp_path / "made").read_bytes())
    assert written[0] == written[1] == written[2]


def test_the_canonical_file_is_sound(tmp_path) -> None:
    """By the strict reader too; tensors begin at multiples of their values' size, whatever dtypes are mixed."""
    tensors = {
        f"{Q}.lora_A.weight": torch.ones(3, 64, dtype=torch.float16),
        f"{Q}.lora_B.weight": torch.ones(64, 3, dtype=torch.float64),
        "transformer_blocks.0.attn.norm_q.diff": torch.ones(32, dtype=torch.float8_e5m2),
        "txt_in.diff_b": torch.ones(64),
    }
    canonical(tmp_path, tensors)
    header = read_header(tmp_path / "canonical")
    assert header.metadata == {"format": FORMAT, "scales": f'{{"{Q}":1.0}}'}
    widths = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    assert all((header.data_begin + entry.begin) % widths[entry.dtype] == 0 for entry in header.entries.values())


def test_a_large_tensor_is_read_in_pieces(tmp_path, monkeypatch) -> None:
    """The pieces make the whole."""
    monkeypatch.setattr(converting, "CHUNK_BYTES", 64)
    pairs = make_pairs([Q], dtype=torch.bfloat16)
    assert torch.equal(canonical(tmp_path, LAYOUTS["bare"].write(pairs)[0])[f"{Q}.lora_B.weight"], pairs[Q][1])


@pytest.mark.parametrize("alpha", [torch.tensor(3), torch.tensor([3.0]), torch.tensor(3.0, dtype=torch.float16)])
def test_alpha_in_every_dtype(tmp_path, alpha) -> None:
    """A single number, whole or not, with or without an axis."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    canonical(tmp_path, tensors | {f"{Q}.alpha": alpha})
    assert read_header(tmp_path / "canonical").metadata["scales"] == f'{{"{Q}":0.75}}'


def test_numbers_are_read_as_torch_reads_them() -> None:
    """In each dtype that a single number may have."""
    for name, dtype in {**DTYPES, "I64": torch.int64, "I32": torch.int32}.items():
        value = torch.tensor([-1.75]).to(dtype)
        assert to_number(value.view(torch.uint8).numpy().tobytes(), name) == value.item()


def test_a_stated_rank_must_be_the_rank(tmp_path) -> None:
    """A file that says so beside its matrices is held to it."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    canonical(tmp_path, tensors | {f"{Q}.rank": torch.tensor(4)})
    with pytest.raises(LoraInconsistent, match="says rank 8; the matrices have 4"):
        canonical(tmp_path, tensors | {f"{Q}.rank": torch.tensor(8)})


def test_an_alpha_that_is_no_number_is_refused(tmp_path) -> None:
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    with pytest.raises(LoraNotFinite, match="alpha"):
        canonical(tmp_path, tensors | {f"{Q}.alpha": torch.tensor(float("nan"))})


NOTES = {
    "the transformer's": ({"transformer.r": 8, "transformer.lora_alpha": 2}, 0.25),
    "without prefix": ({"r": 8, "lora_alpha": 2}, 0.25),
    "a root": ({"r": 4, "lora_alpha": 2, "use_rslora": True}, 1.0),
    "a rank of its own": ({"r": 8, "lora_alpha": 2, "rank_pattern": {"attn.to_q": 4}}, 0.5),
    "an alpha of its own": ({"r": 4, "lora_alpha": 2, "alpha_pattern": {f"^{Q}": 6}}, 1.5),
    "another's": ({"r": 4, "lora_alpha": 2, "alpha_pattern": {"^attn.to_q": 6, "o_q": 6}}, 0.5),
    "LoKr's": ({"r": 4, "alpha": 8}, 2.0),
    "nothing of a scale": ({"text_encoder.r": 4}, 1.0),
}


@pytest.mark.parametrize(("note", "scale"), NOTES.values(), ids=NOTES)
def test_the_note_of_peft(tmp_path, note, scale) -> None:
    """Alpha over rank by the module's own, as PEFT matches them; a number beside the matrices goes before it."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    metadata = {"lora_adapter_metadata": json.dumps(note)}
    canonical(tmp_path, tensors, metadata)
    assert json.loads(read_header(tmp_path / "canonical").metadata["scales"]) == {Q: scale}
    canonical(tmp_path, tensors | {f"{Q}.alpha": torch.tensor(1.0)}, metadata)
    assert json.loads(read_header(tmp_path / "canonical").metadata["scales"]) == {Q: 0.25}


def test_a_broken_source_leaves_nothing(tmp_path) -> None:
    """Neither a target nor a part of one; what stood there before stays."""
    (tmp_path / "canonical").write_text("before")
    path = save(tmp_path / "file", LAYOUTS["bare"].write(make_pairs(targets())))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(LoraHeaderInvalid):
        convert(path, tmp_path / "canonical", MODULES)
    assert (tmp_path / "canonical").read_text() == "before"
    assert {found.name for found in tmp_path.iterdir()} == {"file", "canonical"}
