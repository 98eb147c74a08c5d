"""What people are told of a LoRA."""

import json

import torch

from darkroom.lora.header import read_header
from darkroom.lora.inspect import Report, describe
from darkroom.lora.keys import Kind
from loras import LAYOUTS, MODULES, File, make_pairs, save, targets

Q = "transformer_blocks.0.attn.to_q"


def report(tmp_path, file: File, *, whole: bool = True) -> Report:
    path = save(tmp_path / "file", file)
    return describe(read_header(path), MODULES, path if whole else None)


def test_a_sound_file(tmp_path) -> None:
    """Layout, ranks, scales, coverage by kind of module, dtypes, base and size."""
    pairs = make_pairs(targets(top=False), ranks=(2, 8), dtype=torch.float16)
    found = report(tmp_path, LAYOUTS["kohya"].write(pairs))
    assert found.problems == ()
    assert (found.layouts, found.kinds) == (("kohya",), {Kind.LORA: 42})
    assert (found.ranks, found.scales, found.alphas) == ((2, 8), (3 / 8, 3 / 2), (3, 3))
    assert found.coverage["attn.to_q"] == found.coverage["img_mod.1"] == (3, 3)
    assert "img_in" not in found.coverage
    assert (found.modules, found.tensors, found.dtypes) == (42, 126, {"F16": 84, "F32": 42})
    assert found.base == "qwen_image_edit"
    assert found.size_bytes == (tmp_path / "file").stat().st_size


def test_a_header_alone(tmp_path) -> None:
    """All but the scales is known before the rest of the file is here."""
    file = LAYOUTS["lightx2v"].write(make_pairs([Q]))
    whole, head = report(tmp_path, file), report(tmp_path, file, whole=False)
    assert (whole.scales, head.scales, head.alphas) == ((2.0, 2.0), None, None)
    assert (head.ranks, head.coverage, head.problems) == (whole.ranks, {"attn.to_q": (1, 3)}, ())


def test_a_file_that_would_be_refused(tmp_path) -> None:
    """Every reason is told, not only the first."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    tensors |= {f"{Q}.dora_scale": torch.ones(64, 1), "double_blocks.0.img_attn.qkv.alpha": torch.tensor(1.0)}
    found = report(tmp_path, (tensors, {"lora_adapter_metadata": "["}))
    assert len(found.problems) == 3
    assert all(any(word in problem for problem in found.problems) for word in ("FLUX", "DoRA", "lora_adapter_metadata"))
    assert found.base is None


def test_an_alpha_that_is_wrong_is_told(tmp_path) -> None:
    """What shows only in the values is a problem like any other."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    found = report(tmp_path, (tensors | {f"{Q}.alpha": torch.tensor(float("inf"))}, {}))
    assert "alpha" in found.problems[0]


def test_the_base_in_pefts_note(tmp_path) -> None:
    """Where diffusers saved the adapter with its config."""
    tensors, _ = LAYOUTS["bare"].write(make_pairs([Q]))
    note = {"transformer.base_model_name_or_path": "Qwen/Qwen-Image-Edit-2509"}
    found = report(tmp_path, (tensors, {"lora_adapter_metadata": json.dumps(note)}))
    assert found.base == "Qwen/Qwen-Image-Edit-2509"


def test_a_base_that_is_no_name_is_quoted(tmp_path) -> None:
    """A stranger's file can't write to the terminal, nor at length."""
    file = LAYOUTS["bare"].write(make_pairs([Q]))[0], {"base_model": "\x1b[2J" + "x" * 1000}
    base = report(tmp_path, file).base
    assert base is not None
    assert base.isprintable()
    assert len(base) < 150


def test_of_many_problems_the_first_are_told(tmp_path) -> None:
    """A report stays short enough to be read, and says that it is cut."""
    tensors = {f"img_in.lora_A.a{index}.weight": torch.ones(1, 1) for index in range(20)}
    found = report(tmp_path, (tensors, {}))
    assert len(found.problems) == 11
    assert found.problems[-1] == "and 10 more"
