"""The Triton kernels without a GPU: `python triton_cases.py interpret | compile` prints what became of each case.

Triton decides when it is imported whether it interprets, and pretends to have a driver for a whole process, so this
runs in one of its own. interpret: what the kernels compute, on a CPU. compile: that they are made for a Hopper GPU.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import product

import torch

from darkroom.engine.kernels import FLOAT8, PLAIN, Kernels

DTYPES = (torch.float32, torch.bfloat16)
TEXT, IMAGE, FIRST = 3, 7, 4
Case = Callable[[Kernels], None]


def some(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(made, expected):
    """To a rounding of the dtype; Triton's interpreter cuts bfloat16 off where a GPU rounds."""
    tolerance = {"rtol": 1.6e-2, "atol": 1e-2} if expected.dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(made, expected, **tolerance)


def joining(heads, head_dim, parts, dtype) -> Case:
    """parts: projections side by side, of which all but values are turned; then the last alone of tokens that have
    three, and of a stream by itself."""

    def check(kernels):
        text, image = (some(n, 3, heads, head_dim, dtype=dtype, seed=n) for n in (TEXT, IMAGE))
        gains = [tuple(1 + 0.3 * some(2, head_dim, dtype=dtype, seed=seed)) for seed in (1, 2)]
        angles = some(TEXT + IMAGE, head_dim // 2, seed=3)
        turned = min(parts, 2)
        for above in (text[:, -parts:], image[:0, -parts:]):
            below = image[:, -parts:]
            at = angles[: len(above) + len(below)]
            arguments = (above, below, *(each[:turned] for each in gains), at.cos(), at.sin())
            for made, expected in zip(kernels.joined(*arguments), PLAIN.joined(*arguments), strict=True):
                assert_near(made, expected)

    return check


def modulating(dim, rows, dtype) -> Case:
    """Of a stream shared by two prompts, and of the first tokens alone."""

    def check(kernels):
        table = some(6, 5, dim, dtype=dtype, seed=1)
        gate, scale, shift = table[2:5, :rows] if rows == 2 else table[2:5, 3, None]
        update = some(2, IMAGE, dim, dtype=dtype, seed=2)
        whole = some(2, IMAGE, dim, dtype=dtype, seed=3)
        for x in (some(1, IMAGE, dim, dtype=dtype, seed=4).expand(2, -1, -1), whole, whole[:, : FIRST + 1]):
            added = update[:, : x.shape[1]]
            modulated = kernels.modulated(x, scale, shift, FIRST)
            assert_near(modulated, PLAIN.modulated(x, scale, shift, FIRST))
            gated = kernels.gated(x, gate, added, FIRST)
            assert_near(gated, PLAIN.gated(x, gate, added, FIRST))
            kept, normed = kernels.gated_modulated(x, gate, added, scale, shift, FIRST)
            assert_near(kept, gated)
            assert_near(normed, PLAIN.modulated(kept, scale, shift, FIRST))

    return check


def quantising(dim, dtype) -> Case:
    """Of rows that float8 holds exactly, since the interpreter does not round to it as a GPU does."""

    def check(kernels):
        exact = some(4, dim + 8).to(FLOAT8).float()
        exact[:, 0] = 448
        rows = (exact * torch.tensor([2.0**-9, 1.0, 64.0, 0.0])[:, None]).to(dtype)[:, :dim]
        for made, expected in zip(kernels.to_float8(rows), PLAIN.to_float8(rows), strict=True):
            assert_near(made.float(), expected.float())

    return check


def cases() -> Iterator[tuple[str, Case]]:
    for (heads, head_dim), dtype in product(((2, 32), (3, 60), (5, 64), (24, 128)), DTYPES):
        for parts in (1, 2, 3):
            yield f"join {heads}x{head_dim} of {parts} {dtype}", joining(heads, head_dim, parts, dtype)
    for dim, rows, dtype in product((8, 96, 3072), (1, 2), DTYPES):
        yield f"modulate {dim} by {rows} {dtype}", modulating(dim, rows, dtype)
    for dim, dtype in product((8, 200, 3072, 12288), DTYPES):
        yield f"float8 {dim} {dtype}", quantising(dim, dtype)


def outcome(check: Case, kernels: Kernels) -> str:
    try:
        check(kernels)
    except Exception as error:  # noqa: BLE001  whatever it is, it is this case's
        return f"{type(error).__name__}: {error}"
    return "ok"


def interpret() -> dict[str, str]:
    os.environ["TRITON_INTERPRET"] = "1"
    from darkroom.engine.triton_kernels import TRITON

    return {name: outcome(check, TRITON) for name, check in cases()}


def compile_for_hopper() -> dict[str, str]:
    """Every kernel as a case launches it, to machine code; the launch itself is left out."""
    import triton
    from triton.backends.compiler import GPUTarget

    from darkroom.engine import triton_kernels

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, _device):
            return 0

    made: list[int] = []

    def compile_only(kernel, grid, *arguments, num_warps):
        made.append(len(kernel.warmup(*arguments, grid=grid, num_warps=num_warps).asm["cubin"]))

    triton.runtime.driver.set_active(Driver())
    triton_kernels._launch = compile_only
    results = {}
    for name, check in {
        "join": joining(24, 128, 3, torch.bfloat16),
        "modulate": modulating(3072, 2, torch.bfloat16),
        "float8": quantising(12288, torch.bfloat16),
    }.items():
        made.clear()
        said = outcome(check, triton_kernels.TRITON)
        results[name] = said if made and all(made) else "nothing was compiled"
    return results


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        assert_near = lambda _made, _expected: None  # noqa: E731  nothing is computed
    print(json.dumps(interpret() if sys.argv[1] == "interpret" else compile_for_hopper()))
