"""What switching to another set of LoRAs costs, with adapters of the public files' shapes held in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from benchmarks.gpu_bench import Bench, Found, tried
from darkroom.engine.adapter import Adapter, LowRank
from darkroom.engine.beside import Beside
from darkroom.engine.held import values_of
from darkroom.engine.overlay import Overlay
from darkroom.engine.transformer import Transformer

RANKS = (16, 32, 64)
TO_REACH_MS = 25.0
PLENTY = 2**40
STRENGTHS = (1.0, 0.5)
SPLIT_STRENGTHS = (0.7, 0.35)
"""By which factors in bfloat16 are multiplied into a rounded part and a rest: twice the products."""


@torch.inference_mode()
def loras(bench: Bench) -> Found:
    """Milliseconds for three adapters on attention and MLP of both streams: merged anew, kept merged, and run beside
    the weights; and for copying the weights that they change."""
    transformer = bench.transformer("exact")
    adapters = {str(rank): _adapter(transformer, rank, bench) for rank in RANKS}
    yield "ranks", list(RANKS)
    yield "to reach, ms", TO_REACH_MS
    ways: Mapping[str, Callable[[], Overlay | Beside]] = {
        "merged anew": lambda: Overlay(transformer, max_bytes=0),
        "kept merged": lambda: Overlay(transformer, max_bytes=PLENTY),
        "put beside": lambda: Beside(transformer),
    }
    for way, make in ways.items():
        applied = make()
        try:
            yield f"{way}, ms", tried(_switch_ms, bench, applied, adapters, STRENGTHS)
            if way == "merged anew":
                yield f"{way} at {SPLIT_STRENGTHS}, ms", tried(_switch_ms, bench, applied, adapters, SPLIT_STRENGTHS)
                yield from _copied(bench, [values_of(*place) for place in applied._used])
        finally:
            applied.use((), adapters.__getitem__)
        del applied


def _switch_ms(
    bench: Bench, applied: Overlay | Beside, adapters: Mapping[str, Adapter], strengths: Sequence[float]
) -> float:
    """From all adapters at one strength to all at the other."""
    sets = [tuple((name, strength) for name in adapters) for strength in strengths]

    def switch() -> None:
        for each in sets:
            applied.use(each, adapters.__getitem__)

    return 1000 * bench.seconds(switch) / len(sets)


def _copied(bench: Bench, touched: Sequence[torch.Tensor]) -> Found:
    """What must move at least: the pristine weights are read, and as much is written."""
    copies = [torch.empty_like(each) for each in touched]

    def copy() -> None:
        for target, source in zip(copies, touched, strict=True):
            target.copy_(source)

    yield "GB read, and written", sum(each.nbytes for each in touched) / 1e9
    yield "copied, ms", 1000 * bench.seconds(copy)


def _adapter(transformer: Transformer, rank: int, bench: Bench) -> Adapter:
    def factor(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=bench.device, dtype=torch.bfloat16).div_(columns**0.5)

    return {
        f"transformer_blocks.{block}.{name}.weight": (LowRank(a=factor(rank, columns), b=factor(rows, rank), scale=1),)
        for block in range(transformer.config.num_layers)
        for name, rows, columns in _matrices(transformer.config.dim)
    }


def _matrices(dim: int) -> Iterator[tuple[str, int, int]]:
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        yield f"attn.{name}", dim, dim
    for stream in ("img", "txt"):
        yield f"{stream}_mlp.net.0.proj", 4 * dim, dim
        yield f"{stream}_mlp.net.2", dim, 4 * dim
