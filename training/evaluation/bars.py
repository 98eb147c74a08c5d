"""What a checkpoint must reach, and whether it does."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.world.jobs import PAIR, PRESETS

PLUS, ALL = "plus", "all"
MAIN = (PLUS, "multiple_angle", "product_photography", "texture_apply")
GROUPS = (PLUS, *PRESETS, PAIR, ALL)
"""What means are taken over: the base's edits together, every preset's, two LoRAs at once, and all scenes."""

_GAIN_DB = {PLUS: 12.0, "multiple_angle": 10.0, "product_photography": 15.0, "texture_apply": 8.0, PAIR: 3.0}
_SIBLING_GAIN_DB = 5.0
_WHOLE_DB = {PLUS: 25.0, "multiple_angle": 25.0, "product_photography": 25.0, "texture_apply": 23.0}
_RIGHT_DB, _RIGHT_TEXTURE_DB = 5.0, 3.0
_VAE_DB, _ADAPTER_DB, _FAST_DB, _SHARE = 35.0, 3.0, -1.0, 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """measure: of `Outcome`; its mean must be `least` or more."""

    group: str
    measure: str
    least: float
    value: float

    @property
    def held(self) -> bool:
        return self.value >= self.least


def bars_of(group: str, means: Mapping[str, float | None]) -> list[Bar]:
    """Those of the group's measures that have one."""
    if group == ALL:
        value = means["vae_db"]
        return [] if value is None else [Bar(group=group, measure="vae_db", least=_VAE_DB, value=value)]
    least = {
        "gain_changed_db": _GAIN_DB.get(group, _SIBLING_GAIN_DB),
        "whole_db": _WHOLE_DB.get(group),
        "nearer": _SHARE,
        "adapter_db": _ADAPTER_DB,
        "right_db": _RIGHT_TEXTURE_DB if group == "texture_apply" else _RIGHT_DB,
        "right_wins": _SHARE,
        "nearest": _SHARE if group == "multiple_angle" else None,
        "fast_db": _FAST_DB,
    }
    return [
        Bar(group=group, measure=measure, least=bar, value=value)
        for measure, bar in least.items()
        if bar is not None and (value := means[measure]) is not None
    ]
