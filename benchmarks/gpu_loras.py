"""What switching to another set of LoRAs costs, with adapters of the public files' shapes held in memory."""

from collections.abc import Iterator, Sequence

import torch

from benchmarks.gpu_bench import Bench, Found
from darkroom.engine.adapter import Adapter, LowRank
from darkroom.engine.beside import Beside
from darkroom.engine.held import values_of
from darkroom.engine.overlay import Overlay
from darkroom.engine.transformer import Transformer

RANKS = (16, 32, 64)
TO_REACH_MS = 25.0
PLENTY = 2**40


@torch.inference_mode()
def loras(bench: Bench) -> Found:
    """Milliseconds for three adapters on attention and MLP of both streams: merged anew, kept merged, and run beside
    the weights; and for copying the weights that they change."""
    transformer = bench.transformer("exact")
    adapters = {str(rank): _adapter(transformer, rank, bench) for rank in RANKS}
    sets = [tuple((name, strength) for name in adapters) for strength in (1.0, 0.5)]
    yield "ranks", list(RANKS)
    yield "to reach, ms", TO_REACH_MS
    merging, keeping, beside = (
        Overlay(transformer, max_bytes=0),
        Overlay(transformer, max_bytes=PLENTY),
        Beside(transformer),
    )

    def switch(applied: Overlay | Beside) -> None:
        for strengths in sets:
            applied.use(strengths, adapters.__getitem__)

    yield "merged anew, ms", 500 * bench.seconds(lambda: switch(merging))
    yield from _copied(bench, [values_of(*place) for place in merging._used])
    merging.use((), adapters.__getitem__)
    yield "kept merged, ms", 500 * bench.seconds(lambda: switch(keeping))
    keeping.use((), adapters.__getitem__)
    yield "put beside, ms", 500 * bench.seconds(lambda: switch(beside))
    beside.use((), adapters.__getitem__)


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
