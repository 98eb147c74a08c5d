"""That what is timed is right: kernels against torch as it is, our transformer against that of diffusers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu_bench import Bench, Found, off_by, tried
from benchmarks.gpu_checkpoint import random_transformer
from benchmarks.gpu_reference import Inputs, make_inputs, our_steps, reference_of, steps_of, their_steps
from darkroom.engine.kernels import PLAIN, Kernels, compiled
from darkroom.engine.transformer import Transformer, TransformerConfig

LAYERS = 4
"""Of a transformer of the published width that fits in float32 twice."""
WARPS = (2, 4, 8, 16)


def kernels(bench: Bench) -> Found:
    """Each operation at the shapes of an edit of one picture: error to the plain one, ms, and GB/s of what it must
    read and write at least."""
    sides: dict[str, Callable[[], Kernels]] = {"chosen": lambda: bench.kernels}
    if bench.cuda:
        # Last, since torch's compiler takes its time.
        sides["compiled"] = compiled
    yield "names", {"chosen": "triton_kernels" if bench.cuda else "plain", "compared to": "plain"}
    for side, make in sides.items():
        made = make()
        for dtype in (torch.bfloat16, torch.float32):
            for name, arguments in operations(bench.config, bench, dtype).items():
                yield f"{side} {name} {_word(dtype)}", tried(_one, bench, name, made, arguments)


def warps(bench: Bench) -> Found:
    """Milliseconds of the Triton kernels in bfloat16, by warps of a program, whatever number they are launched with
    otherwise."""
    if not bench.cuda or bench.compile == "off":
        yield "left out", "no Triton kernels are used here"
        return
    for name, arguments in operations(bench.config, bench, torch.bfloat16).items():
        if name != "gelu":
            yield name, tried(_by_warps, bench, name, arguments)


def _by_warps(bench: Bench, name: str, arguments: tuple[Any, ...]) -> dict[int, float]:
    from darkroom.engine import triton_kernels  # noqa: PLC0415  only a GPU's machine has Triton for sure

    launch, found = triton_kernels._launch, {}
    call = getattr(triton_kernels.TRITON, name.removesuffix(" in two"))
    for count in WARPS:

        def launched(*rest: Any, num_warps: int, count: int = count) -> None:
            del num_warps
            launch(*rest, num_warps=count)

        with patch.object(triton_kernels, "_launch", launched):
            found[count] = bench.short_ms(lambda: call(*arguments))
    return found


def operations(config: TransformerConfig, bench: Bench, dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """Arguments by the operation's name, cut from fused projections and tables as the transformer has them."""
    heads, head_dim, dim = config.num_attention_heads, config.attention_head_dim, config.dim
    image, text = 2 * bench.side**2, 16 if bench.toy else 260
    generator = torch.Generator(bench.device).manual_seed(1)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=bench.device).to(dtype)

    image_qkv, text_qkv = some(image, 3, heads, head_dim), some(text, 3, heads, head_dim)
    gains = tuple(some(2, head_dim)), tuple(some(2, head_dim))
    angles = some(text + image, head_dim // 2).float()
    x, update, table = some(1, image, dim), some(1, image, dim), some(6, 2, dim)
    first, (gate, scale, shift), (gate_2, scale_2, shift_2) = image // 2, table[:3, :1], table[:3]
    return {
        "joined": (text_qkv, image_qkv, *gains, angles.cos(), angles.sin()),
        "modulated": (x, scale, shift, first),
        "modulated in two": (x, scale_2, shift_2, first),
        "gated": (x, gate, update, first),
        "gated in two": (x, gate_2, update, first),
        "gated_modulated": (x, gate, update, scale, shift, first),
        "gated_modulated in two": (x, gate_2, update, scale_2, shift_2, first),
        "gelu": (some(1, image, 4 * dim),),
        "to_float8": (x[0],),
    }


def _one(bench: Bench, name: str, made: Kernels, arguments: tuple[Any, ...]) -> dict[str, float]:
    field = name.removesuffix(" in two")
    call, plain = getattr(made, field), getattr(PLAIN, field)
    values, expected = call(*arguments), plain(*arguments)
    pairs = list(zip(values, expected, strict=True)) if isinstance(expected, tuple) else [(values, expected)]
    tensors = [each for each in arguments if isinstance(each, Tensor)] + [value for value, _ in pairs]
    ms = bench.short_ms(lambda: call(*arguments))
    return {
        "off_by": max(off_by(value.float(), wanted.float()) for value, wanted in pairs),
        "ms": ms,
        "plain_ms": bench.short_ms(lambda: plain(*arguments)),
        "gb_per_s": sum(each.numel() * each.element_size() for each in tensors) / ms / 1e6,
    }


@torch.inference_mode()
def reference(bench: Bench) -> Found:
    """Errors of two guided steps. small and wide: in float32 to that of diffusers in float32; in bfloat16, both to
    float32's. full: all layers in bfloat16, ours to that of diffusers, which rounds otherwise."""
    full = bench.transformer("exact").config
    small = TransformerConfig(
        num_layers=3, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=64, axes_dims_rope=(8, 12, 12)
    )
    wide = replace(full, num_layers=min(LAYERS, full.num_layers))
    for name, config in {"small": small, "small, zero_cond_t": replace(small, zero_cond_t=True), "wide": wide}.items():
        yield name, tried(_by_precision, bench, config)
    yield "full", tried(_whole_error, bench)


def _whole_error(bench: Bench) -> dict[str, float]:
    transformer = bench.transformer("exact")
    inputs = _inputs(bench, transformer.config, bench.dtype)
    expected = their_steps(reference_of(transformer, bench.diffusers), inputs, steps_of(inputs, 2))
    return {_word(bench.dtype): off_by(our_steps(transformer, inputs, steps_of(inputs, 2)), expected)}


def _by_precision(bench: Bench, config: TransformerConfig) -> dict[str, float]:
    exact = random_transformer(config, device=bench.device, dtype=torch.float32, kernels=bench.kernels)
    inputs = _inputs(bench, config, torch.float32)
    schedule = steps_of(inputs, 2)
    truth = their_steps(reference_of(exact, bench.diffusers), inputs, schedule)
    found = {"float32": off_by(our_steps(exact, inputs, schedule), truth)}
    del exact
    coarse = random_transformer(config, device=bench.device, dtype=torch.bfloat16, kernels=bench.kernels)
    plain = random_transformer(config, device=bench.device, dtype=torch.bfloat16)
    inputs = _inputs(bench, config, torch.bfloat16)
    sides: dict[str, Callable[[], Tensor]] = {
        "bfloat16": lambda: our_steps(coarse, inputs, schedule),
        "bfloat16, plain kernels": lambda: our_steps(plain, inputs, schedule),
        "bfloat16, diffusers": lambda: their_steps(reference_of(coarse, bench.diffusers), inputs, schedule),
    }
    return found | {name: off_by(steps(), truth) for name, steps in sides.items()}


def _inputs(bench: Bench, config: TransformerConfig, dtype: torch.dtype) -> Inputs:
    side = min(bench.side, 32)
    return make_inputs(config, side=side, pictures=1, prompts=2, device=bench.device, dtype=dtype)


def reference_speed(bench: Bench) -> Found:
    """Seconds of a guided step: ours, diffusers as it is, and with its blocks compiled. ratio: theirs to ours."""
    transformer = bench.transformer("exact")
    theirs = reference_of(transformer, bench.diffusers)
    ours_s: dict[int, float] = {}
    for how in ("eager", "compiled"):
        if how == "compiled":
            if not bench.cuda:
                yield how, {"left out": "compiling takes minutes on a CPU"}
                return
            theirs.compile_repeated_blocks(fullgraph=True, dynamic=True)
        for pictures in (1,) if bench.toy else (1, 2):
            yield f"{how}, {pictures} picture(s)", tried(_race, bench, transformer, theirs, pictures, ours_s)


@torch.inference_mode()
def _race(
    bench: Bench, transformer: Transformer, theirs: torch.nn.Module, pictures: int, ours_s: dict[int, float]
) -> dict[str, float]:
    """ours_s: by pictures, once it has been timed."""
    steps = 3
    inputs = make_inputs(
        transformer.config, side=bench.side, pictures=pictures, prompts=2, device=bench.device, dtype=bench.dtype
    )
    schedule = steps_of(inputs, steps)
    if pictures not in ours_s:
        ours_s[pictures] = bench.seconds(lambda: our_steps(transformer, inputs, schedule), rounds=2) / steps
    theirs_s = bench.seconds(lambda: their_steps(theirs, inputs, schedule), rounds=2) / steps
    return {"ratio": theirs_s / ours_s[pictures], "ours_s": ours_s[pictures], "theirs_s": theirs_s}


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
