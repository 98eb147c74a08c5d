"""The transformer's small operations: what they compute, and that fused ones compute the same."""

import shutil

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its customary name

from darkroom.engine import fusion
from darkroom.engine.kernels import PLAIN, compiled, halved
from darkroom.engine.rope import joint_rope
from darkroom.errors import BadSetting

CPU = torch.device("cpu")
HEADS, HEAD_DIM, TEXT, IMAGE = 2, 32, 3, 6


def some(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_turning_halves_is_turning_neighbours_in_another_order():
    """Products of queries and keys are those of the published form: RMS norm, gain, neighbouring channels turned."""
    rope = joint_rope(TEXT, [(2, 3)], (8, 12, 12), CPU)
    gain = 1 + 0.3 * some(HEAD_DIM, seed=1)

    def published(x):
        pairs = torch.view_as_complex((F.rms_norm(x, (HEAD_DIM,), gain, 1e-6)).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.complex(rope.cos, rope.sin)[:, None]).flatten(-2)

    def ours(x):
        reordered = halved(x.permute(1, 2, 0).flatten(0, 1), HEADS).unflatten(0, (HEADS, -1)).permute(2, 0, 1)
        stream, gains = reordered[:, None], (halved(gain, 1),)
        (turned,) = PLAIN.joined(stream[:0], stream, gains, gains, rope.cos, rope.sin)
        return turned

    query, key = some(TEXT + IMAGE, HEADS, HEAD_DIM, seed=2), some(TEXT + IMAGE, HEADS, HEAD_DIM, seed=3)
    expected = torch.einsum("qhd,khd->hqk", published(query), published(key))
    torch.testing.assert_close(torch.einsum("qhd,khd->hqk", ours(query), ours(key)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2], ids=["2509", "2511"])
def test_modulated_norm_and_gate_are_their_formulas(rows):
    """One row for all tokens, or one for the result's and one for the references'."""
    x, update = some(2, IMAGE, 8), some(2, IMAGE, 8, seed=1)
    scale, shift = some(rows, 8, seed=2), some(rows, 8, seed=3)
    spread = [(each if rows == 1 else each.repeat_interleave(torch.tensor([4, 2]), dim=0)) for each in (scale, shift)]
    modulated, gated = PLAIN.modulated(x, scale, shift, 4), PLAIN.gated(x, scale, update, 4)
    torch.testing.assert_close(modulated, F.layer_norm(x, (8,), eps=1e-6) * spread[0] + spread[1])
    torch.testing.assert_close(gated, x + spread[0] * update)
    torch.testing.assert_close(
        PLAIN.gated_modulated(x, scale, update, scale, shift, 4), (gated, PLAIN.modulated(gated, scale, shift, 4))
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a CPU needs g++")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_kernels_agree_with_the_plain_ones(dtype):
    """To a rounding of the dtype, at two sizes from one compilation."""
    tolerance = {"rtol": 1.6e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    for text_tokens, grid in ((TEXT, (2, 3)), (7, (4, 5))):
        rope = joint_rope(text_tokens, [grid], (8, 12, 12), CPU)
        text, image = (
            some(tokens, 3, HEADS, HEAD_DIM, dtype=dtype, seed=tokens) for tokens in (text_tokens, grid[0] * grid[1])
        )
        gains = [tuple(1 + 0.3 * some(2, HEAD_DIM, dtype=dtype, seed=seed)) for seed in (1, 2)]
        ours, keys = [each[:1] for each in gains], [each[1:] for each in gains]
        at = rope.rows(text_tokens, rope.tokens)
        for name, arguments in {
            "joined": (text, image, *gains, rope.cos, rope.sin),
            "joined: keys and values": (text[:, 1:], image[:, 1:], *keys, rope.cos, rope.sin),
            "joined: one stream's queries": (image[:0, :1], image[:, :1], *ours, at.cos, at.sin),
            "gelu": (5 * image,),
        }.items():
            made, expected = (getattr(each, name.partition(":")[0])(*arguments) for each in (compiled(), PLAIN))
            torch.testing.assert_close(made, expected, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_float8_fills_its_format_row_by_row():
    """A row's largest value is the format's; each value comes back to within a sixteenth of itself, or of its row's
    smallest step."""
    rows = some(5, 64) * torch.tensor([1e-3, 1.0, 50.0, 1e4, 0.0])[:, None]
    values, scale = PLAIN.to_float8(rows)
    assert values.float().abs().amax(-1).tolist() == [448, 448, 448, 448, 0]
    off = (values.float() * scale - rows).abs()
    assert (off <= rows.abs() / 16 + scale * 2**-9).all()


def test_a_compiler_is_used_where_it_pays_and_missed_only_where_it_was_asked_for(monkeypatch):
    """`auto` leaves small models on a CPU alone; `on` without a compiler is refused, `auto` is not."""
    many, few = fusion.WORTH_COMPILING_BYTES, fusion.WORTH_COMPILING_BYTES - 1
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert fusion.choose("auto", CPU, many) is compiled()
    assert fusion.choose("auto", CPU, few) is PLAIN
    assert fusion.choose("on", CPU, few) is compiled()
    assert fusion.choose("off", CPU, many) is PLAIN
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert fusion.choose("auto", CPU, many) is PLAIN
    with pytest.raises(BadSetting, match="compile = on needs a C\\+\\+ compiler"):
        fusion.choose("on", CPU, many)


def test_a_gpu_has_its_own_kernels_where_triton_can_make_them(monkeypatch):
    """However small the model; and torch as it is where Triton can't, unless it was asked for."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(fusion, "_can_triton", lambda _gpu: True)
    monkeypatch.setattr(fusion, "_triton", lambda: "Triton's")
    assert [fusion.choose(mode, gpu, 0) for mode in ("auto", "on", "off")] == ["Triton's", "Triton's", PLAIN]
    monkeypatch.setattr(fusion, "_can_triton", lambda _gpu: False)
    assert fusion.choose("auto", gpu, 0) is PLAIN
    with pytest.raises(BadSetting, match="compile = on needs Triton"):
        fusion.choose("on", gpu, 0)
