"""LoRAs run beside the blocks' matrices, for want of memory for merged copies: a low-rank product added to each one's.

It works with matrices in whatever form they are multiplied in, and wherever they lie. What is no matrix of a block, or
is read in another way than by calling its layer, is small and is merged.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from darkroom.edit import Strengths
from darkroom.engine.adapter import Adapter, LowRank
from darkroom.engine.kernels import halved
from darkroom.engine.linear import Float8Linear, PackedLinear
from darkroom.engine.merge import Part, factors
from darkroom.engine.overlay import Overlay, Target, targets_of
from darkroom.engine.transformer import Transformer


class Beside:
    """merged: the sets that can be used without loading any."""

    def __init__(self, transformer: Transformer) -> None:
        blocks = transformer.blocks
        apart = {blocks[-1].attn.to_qkv, blocks[-1].attn.add_qkv_proj}
        matrices = {
            module
            for block in blocks
            for module in block.modules()
            if isinstance(module, nn.Linear | PackedLinear | Float8Linear) and module not in apart
        }
        self._dtype = transformer.dtype
        self._targets: dict[str, Target] = {
            name: target
            for name, target in targets_of(transformer)
            if target.module in matrices and target.parameter == "weight"
        }
        self._rest = Overlay(transformer, max_bytes=0)
        self._hooks: list[RemovableHandle] = []
        self.merged: frozenset[Strengths] = frozenset({()})

    @torch.inference_mode()
    def use(self, strengths: Strengths, load: Callable[[str], Adapter], *, steps: int = 1) -> None:
        """As `Overlay.use`."""
        if strengths and strengths in self.merged:
            return
        self.merged = frozenset({()})
        while self._hooks:
            self._hooks.pop().remove()
        adapters = {digest: load(digest) for digest, _ in strengths}
        self._rest.use(strengths, lambda digest: self._without_matrices(adapters[digest]), steps=steps)
        parts: dict[nn.Module, list[Part]] = defaultdict(list)
        for name in dict.fromkeys(name for adapter in adapters.values() for name in adapter):
            if target := self._targets.get(name):
                changes = [(change, each) for digest, each in strengths for change in adapters[digest].get(name, ())]
                parts[target.module].append(Part(target.rows, target.heads, changes))
        for module, changed in parts.items():
            self._hooks.append(module.register_forward_hook(_Added(changed, self._dtype)))
        self.merged = frozenset({(), strengths})

    def _without_matrices(self, adapter: Adapter) -> Adapter:
        return {name: changes for name, changes in adapter.items() if name not in self._targets}


class _Added:
    """What the changes of one matrix add to its product."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        self._parts: list[tuple[slice, Tensor, Tensor]] = []
        self._wide: list[Part] = []
        for part in parts:
            low_rank = [(change, strength) for change, strength in part.changes if isinstance(change, LowRank)]
            others = [(change, strength) for change, strength in part.changes if not isinstance(change, LowRank)]
            if low_rank:
                self._parts.append((part.rows, *factors(low_rank, part.heads, dtype, exact=False)))
            if others:
                self._wide.append(Part(part.rows, part.heads, others))

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        tokens, product = inputs[0].flatten(0, -2), output.view(-1, output.shape[-1])
        for rows, up, down in self._parts:
            product[:, rows].addmm_(tokens @ down.t(), up.t())
        for part in self._wide:
            # Of no low rank, so made anew at each call rather than kept: there is no room for it.
            for change, strength in part.changes:
                delta = strength * change.delta()
                delta = halved(delta, part.heads) if part.heads else delta
                product[:, part.rows] += F.linear(tokens, delta.to(tokens.dtype))
        return output
