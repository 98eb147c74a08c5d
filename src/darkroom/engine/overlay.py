"""LoRAs in the transformer's weights: merged from the pristine ones, which are never written to.

A set of LoRAs is merged into copies of the parameters it changes; to use the set is to put those in the pristine ones'
place. Nothing is ever subtracted again, so nothing drifts, and the same set gives the same weights, bit for bit,
whatever was used before.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.edit import Strengths
from darkroom.engine.adapter import Adapter
from darkroom.engine.crew import Crew
from darkroom.engine.held import Held, formed, held_of, hold, home_of, put, size_bytes, values_of
from darkroom.engine.linear import PACK_FROM_STEPS
from darkroom.engine.merge import Part, merging
from darkroom.engine.transformer import FUSED, Transformer

_NARROW = 1024
"""Width of a model whose matrices are too small for several threads each. Of wider ones several in hand at once would
also take more memory than is planned."""


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


Changes = Mapping[Place, Sequence[Part]]
"""What a set changes, parameter by parameter."""


@dataclass(frozen=True, slots=True)
class Pristine:
    """values: in the dtype computed in, plain, where they rest. home: where the module has its own."""

    values: Tensor
    home: torch.device


class Overlay:
    """max_bytes: for merged copies; those used last are kept, and always those in use. rest_at: where pristine weights
    lie while others are in their place; None: where they are.

    merged: the sets that can be used without merging any, or bringing the pristine ones from where they rest.
    """

    def __init__(self, transformer: Transformer, *, max_bytes: int, rest_at: torch.device | None = None) -> None:
        self._targets = dict(targets_of(transformer))
        self._device = transformer.proj_out.weight.device
        is_narrow = transformer.config.dim <= _NARROW
        self._crew = Crew(torch.get_num_threads() if is_narrow and self._device.type == "cpu" else 1)
        self._max_bytes = max_bytes
        self._rest_at = rest_at
        self._pristine: dict[Place, Pristine] = {}
        self._kept: OrderedDict[Strengths, dict[Place, Held]] = OrderedDict()
        self._bare: dict[Place, Held] = {}
        self._used: dict[Place, Held] = {}
        self._in_use: Strengths = ()
        self._turn = threading.Lock()
        self.merged: frozenset[Strengths] = frozenset({()})

    def use(self, strengths: Strengths, load: Callable[[str], Adapter], *, steps: int = 1) -> None:
        """From now on the transformer computes with this set; the empty one is the model as it was loaded.

        load: an adapter by its digest, onto the transformer's device; asked only for a set that is not kept. steps:
        that are to be made with it; for many, matrices are packed.
        """
        packed = steps >= PACK_FROM_STEPS
        with self._turn:
            self._in_use = ()
            if not strengths:
                self._make_room({})
            elif strengths in self._kept:
                self._kept.move_to_end(strengths)
                for place in self._kept[strengths]:
                    self._put_in(place, self._kept[strengths], packed=packed)
            else:
                changes = self._changes([(load(digest), strength) for digest, strength in strengths])
                evicted = self._make_room(changes)
                self._kept[strengths] = self._merge(changes, evicted, packed=packed, in_place=True)
            self._crew.each(self._put_back, self._pristine.keys() - self._kept.get(strengths, {}).keys())
            self._in_use = strengths
            self._tell_merged()

    def merge_ahead(self, strengths: Strengths, load: Callable[[str], Adapter], *, steps: int = 1) -> None:
        """Have this set merged for a `use` to come, if there is room for it beside the one in use; arguments as there.

        May run beside the transformer: nothing that it computes with is touched, and only the caller's thread is taken.
        """
        with self._turn:
            if self._rest_at or not strengths or strengths in self._kept:
                return
            changes = self._changes([(load(digest), strength) for digest, strength in strengths])
            if _bytes(self._kept.get(self._in_use, {})) + _bytes(changes) > self._max_bytes:
                return
            evicted = self._make_room(changes)
            self._kept[strengths] = self._merge(changes, evicted, packed=steps >= PACK_FROM_STEPS, in_place=False)
            self._tell_merged()

    def _put_back(self, place: Place) -> None:
        """The pristine one, in the form it was in at first."""
        if place not in self._bare:
            pristine = self._pristine[place]
            self._bare[place] = hold(*place, pristine.values.to(pristine.home))
        self._place(place, self._bare, packed=True)

    def _put_in(self, place: Place, merged: dict[Place, Held], *, packed: bool) -> None:
        self._place(place, merged, packed=packed)
        self._bare.pop(place, None)

    def _place(self, place: Place, among: dict[Place, Held], *, packed: bool) -> None:
        held = among[place] = formed(*place, among[place], packed=packed)
        if self._used.get(place) is not held:
            put(*place, held)
            self._used[place] = held

    def _tell_merged(self) -> None:
        self.merged = frozenset({self._in_use} if self._rest_at else {(), *self._kept})

    def _make_room(self, changes: Changes) -> dict[Place, Held]:
        """For a set with these, beside the one in use. Returns the last one evicted, whose memory may be written to."""
        evicted: dict[Place, Held] = {}
        for strengths in [each for each in self._kept if each != self._in_use]:
            if _bytes(changes) + sum(map(_bytes, self._kept.values())) <= self._max_bytes:
                break
            evicted = self._kept.pop(strengths)
        return evicted

    def _changes(self, adapters: Sequence[tuple[Adapter, float]]) -> Changes:
        parts: dict[Place, list[Part]] = defaultdict(list)
        for name in dict.fromkeys(name for adapter, _ in adapters for name in adapter):
            target = self._targets[name]
            changes = [(change, strength) for adapter, strength in adapters for change in adapter.get(name, ())]
            parts[target.module, target.parameter].append(Part(target.rows, target.heads, changes))
        return parts

    @torch.inference_mode()
    def _merge(
        self, changes: Changes, evicted: dict[Place, Held], *, packed: bool, in_place: bool
    ) -> dict[Place, Held]:
        """Each parameter once. evicted: emptied on the way, so that no whole set lies beside the new one. in_place: and
        put in its place at once, so that of pristine and merged ones only one need be on the device at a time."""
        made: dict[Place, Held] = {}

        def make(merge: tuple[Place, torch.device, Callable[[], Tensor]]) -> None:
            place, home, merged = merge
            made[place] = tuple(each.to(home) for each in hold(*place, merged()))
            if in_place:
                self._put_in(place, made, packed=packed)
            else:
                made[place] = formed(*place, made[place], packed=packed)

        def merges() -> Iterator[tuple[Place, torch.device, Callable[[], Tensor]]]:
            for place, parts in changes.items():
                pristine = self._take(place)
                values = pristine.values.to(self._device)
                yield place, pristine.home, merging(values, parts, _plain(evicted.pop(place, ()), values))

        crew = self._crew if in_place else Crew(1)
        crew.each(make, merges())
        return made

    def _take(self, place: Place) -> Pristine:
        if place not in self._pristine:
            values = values_of(*place)
            self._pristine[place] = Pristine(values.to(self._rest_at or values.device), home_of(*place))
            self._bare[place] = self._used[place] = held_of(*place)
        return self._pristine[place]


def _bytes(places: Iterable[Place]) -> int:
    """Of a set that changes these; merged, a parameter takes as much as it does now."""
    return sum(size_bytes(held_of(*place)) for place in places)


def _plain(held: Held, like: Tensor) -> Tensor | None:
    """Memory of a merged parameter, if another can be written there."""
    match held:
        case (one,) if not one.is_mkldnn and one.device == like.device and one.dtype == like.dtype:
            return one
    return None


def targets_of(transformer: Transformer) -> Iterator[tuple[str, Target]]:
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
