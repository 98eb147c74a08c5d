"""LoRAs in the transformer's weights: merged from the pristine ones, which are never written to.

A set of LoRAs is merged into copies of the parameters it changes; to use the set is to put those in the pristine ones'
place. Nothing is ever subtracted again, so nothing drifts, and the same set gives the same weights, bit for bit,
whatever was used before.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.engine.adapter import Adapter, LowRank
from darkroom.engine.held import Held, held_of, hold, put, size_bytes, values_of
from darkroom.engine.kernels import halved
from darkroom.engine.transformer import FUSED, Transformer
from darkroom.lora.convert import AdapterFile

Strengths = tuple[tuple[str, float], ...]
"""A set of LoRAs: each file's digest with its strength, in the digests' order."""


def strengths_of(loras: Iterable[AdapterFile]) -> Strengths:
    """The set that these make up: a file that is there twice has both strengths, one without strength is not there."""
    total: dict[str, float] = defaultdict(float)
    for lora in loras:
        total[lora.digest] += lora.strength
    return tuple(sorted((digest, strength) for digest, strength in total.items() if strength))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a published parameter lies: in some rows of one of ours. heads: of queries and keys, whose rows are halved;
    0 for all else."""

    module: nn.Module
    parameter: str
    rows: slice
    heads: int


Place = tuple[nn.Module, str]
"""One of our parameters."""


class Overlay:
    """max_bytes: for merged copies; those used last are kept, and always those in use. rest_at: where pristine weights
    lie while others are in their place; None: where they are."""

    def __init__(self, transformer: Transformer, *, max_bytes: int, rest_at: torch.device | None = None) -> None:
        self._targets = dict(_targets(transformer))
        self._device = transformer.proj_out.weight.device
        self._max_bytes = max_bytes
        self._rest_at = rest_at
        self._pristine: dict[Place, Held] = {}
        self._kept: OrderedDict[Strengths, Mapping[Place, Held]] = OrderedDict()
        self._used: Mapping[Place, Held] = {}

    def use(self, strengths: Strengths, load: Callable[[str], Adapter]) -> None:
        """From now on the transformer computes with this set; the empty one is the model as it was loaded.

        load: an adapter by its digest; asked only for a set that is not kept.
        """
        if strengths not in self._kept:
            # Room is made, and pristine weights are in their place, before others are merged from them.
            self._put({})
            self._make_room()
            if strengths:
                self._kept[strengths] = self._merge([(load(digest), strength) for digest, strength in strengths])
        if strengths:
            self._kept.move_to_end(strengths)
        self._put(self._kept.get(strengths, {}))

    def holds(self, strengths: Strengths) -> bool:
        """Whether using this set takes no merging."""
        return not strengths or strengths in self._kept

    def _put(self, wanted: Mapping[Place, Held]) -> None:
        for place in self._used.keys() - wanted.keys():
            put(*place, tuple(each.to(self._device) for each in self._pristine[place]))
        for place, merged in wanted.items():
            put(*place, merged)
        self._used = wanted

    def _make_room(self) -> None:
        """For a set as large as those kept."""
        while self._kept and self._bytes() * (1 + 1 / len(self._kept)) > self._max_bytes:
            self._kept.popitem(last=False)

    def _bytes(self) -> int:
        return sum(size_bytes(held) for merged in self._kept.values() for held in merged.values())

    @torch.inference_mode()
    def _merge(self, adapters: Sequence[tuple[Adapter, float]]) -> Mapping[Place, Held]:
        """Each parameter once: brought to float32, changed by all adapters, rounded once, and put in its place, so that
        of both only one need be on the device at a time."""
        changed: dict[Place, list[str]] = defaultdict(list)
        for name in dict.fromkeys(name for adapter, _ in adapters for name in adapter):
            target = self._targets[name]
            changed[target.module, target.parameter].append(name)
        merged: dict[Place, Held] = {}
        self._used = merged
        for place, names in changed.items():
            values = values_of(*place)
            wide = values.to(self._device, torch.float32, copy=True)
            for name in names:
                self._change(wide, self._targets[name], name, adapters)
            if place not in self._pristine:
                self._pristine[place] = tuple(each.to(self._rest_at or each.device) for each in held_of(*place))
            merged[place] = hold(*place, wide.to(values.dtype))
            put(*place, merged[place])
        return merged

    def _change(self, wide: Tensor, target: Target, name: str, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Adds what the adapters change of a published parameter to its rows of `wide`."""
        rows = wide[target.rows]
        low_rank = [
            (change, strength)
            for adapter, strength in adapters
            for change in adapter.get(name, ())
            if isinstance(change, LowRank)
        ]
        if low_rank:
            # All at once: one product of the ranks together, added as it is made.
            b = torch.cat(
                [strength * change.scale * change.b.to(wide.device).float() for change, strength in low_rank], 1
            )
            a = torch.cat([change.a.to(wide.device).float() for change, _ in low_rank])
            rows.addmm_(halved(b, target.heads) if target.heads else b, a)
        for adapter, strength in adapters:
            for change in adapter.get(name, ()):
                if not isinstance(change, LowRank):
                    delta = strength * change.delta().to(wide.device)
                    rows.add_(halved(delta, target.heads) if target.heads else delta)


def _targets(transformer: Transformer) -> Iterator[tuple[str, Target]]:
    """Every published parameter with its place."""
    heads = transformer.config.num_attention_heads
    for path, module in transformer.named_modules():
        parent, _, own = path.rpartition(".")
        for parameter in ("weight", "bias"):
            if getattr(module, parameter, None) is None:
                continue
            parts = FUSED.get(own)
            if parts is None:
                # A gain of queries or keys is one head's.
                is_gain = own in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
                yield f"{path}.{parameter}", Target(module, parameter, slice(None), int(is_gain))
                continue
            dim = transformer.config.dim
            for index, part in enumerate(parts):
                rows = slice(index * dim, (index + 1) * dim)
                turned = heads if index < 2 else 0
                yield f"{parent}.{part}.{parameter}", Target(module, parameter, rows, turned)
