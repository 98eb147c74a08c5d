"""What each optimisation gives alone: a stage's seconds without it, over its seconds with it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLQwenImage

from benchmarks import without
from benchmarks.timing import Spread, in_turns, seconds
from benchmarks.work import Work
from darkroom.engine.engine import Engine
from darkroom.engine.kernels import PLAIN
from darkroom.engine.linear import PackedLinear


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """away: what takes it away. work: what is timed with and without it, one of `Work`'s. given: whether this engine
    has it on this machine at all."""

    name: str
    away: Callable[[], AbstractContextManager[None]]
    work: str
    given: bool = True


def ablations(engine: Engine, checkpoint: Path) -> list[Ablation]:
    transformer = engine._models.transformer
    fused = transformer.blocks[0].attn.kernels.joined is not PLAIN.joined
    by_products = transformer.blocks[0].attn.kernels.attend is not PLAIN.attend
    packed = any(isinstance(module, PackedLinear) for module in transformer.modules())
    their_vae = AutoencoderKLQwenImage.from_pretrained(checkpoint / "vae", torch_dtype=transformer.dtype)
    unpacked = partial(without.packed_weights, stored=without.unpacked(checkpoint, engine.dtype))
    in_3d = partial(without.two_dimensional_vae, theirs=their_vae)
    doubling = partial(without.upsampling_in_one, unfolded=without.unfolded(checkpoint, engine.dtype))
    rows: list[tuple[str, Callable[..., AbstractContextManager[None]], str, bool]] = [
        ("weights packed once for oneDNN", unpacked, "denoise", packed),
        ("both prompts in one pass", without.both_prompts_at_once, "denoise", True),
        ("norm and rotation of queries and keys in one compiled kernel", without.compiled_rotation, "denoise", fused),
        ("GELU compiled", without.compiled_gelu, "denoise", fused),
        ("attention by two products", without.attention_by_products, "denoise", by_products),
        ("modulation within the layer norm, gate within the sum", without.modulation_in_the_norm, "denoise", True),
        ("queries, keys and values by one matrix", without.fused_projections, "denoise", True),
        ("last block for the result's tokens alone", without.short_last_block, "denoise", True),
        ("modulation of all steps from one table", without.modulation_table, "denoise", True),
        ("references embedded once", without.references_embedded_once, "denoise", True),
        ("pictures looked at once for both prompts", without.vision_tower_once, "encode", True),
        ("no language-model head", without.no_head, "encode", True),
        ("what was encoded is kept: the same pictures and prompt again", without.memo, "encode_again", True),
        ("VAE in two dimensions", in_3d, "vae", True),
        ("VAE channels last", without.channels_last, "vae", True),
        ("VAE upsampling and convolution in one", doubling, "vae", True),
        ("VAE norms in bands that fit the cache", without.norm_in_bands, "vae", True),
    ]
    return [Ablation(name=name, away=partial(away, engine), work=work, given=given) for name, away, work, given in rows]


def measure(engine: Engine, checkpoint: Path, *, steps: int, rounds: int, budget_s: float) -> list[dict[str, Any]]:
    """A row for each, in the order above. engine: one that keeps what it encodes."""
    work, listed = Work(engine, steps=steps), ablations(engine, checkpoint)
    return [
        _row(each, getattr(work, each.work), rounds=rounds, budget_s=budget_s / len(listed))
        if each.given
        else {"name": each.name, "stage": each.work, "given": False}
        for each in listed
    ]


def _row(ablation: Ablation, work: Callable[[], object], *, rounds: int, budget_s: float) -> dict[str, Any]:
    def timed(context: Callable[[], AbstractContextManager[None]]) -> float:
        with context():
            return seconds(work)

    found = in_turns(
        {"with": lambda _: timed(nullcontext), "without": lambda _: timed(ablation.away)},
        rounds=rounds,
        budget_s=budget_s,
        about=ablation.name,
    )
    return row(ablation.name, ablation.work, found)


def row(name: str, stage: str, found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """found: the stage's seconds `with` and `without`, round by round."""
    ratios = [bare / full for full, bare in zip(found["with"], found["without"], strict=True)]
    return {
        "name": name,
        "stage": stage,
        "given": True,
        "ratio": Spread.of(ratios).row(),
        **{f"{side}_s": Spread.of(times).row() for side, times in found.items()},
    }
