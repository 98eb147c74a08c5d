"""What a key's end says of its tensor: which part of which kind of change it is, or whose it is that is not read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """How a change of a module is stored."""

    LORA = "LoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    DIFFERENCE = "difference"


PARTS = MappingProxyType(
    {
        Kind.LORA: ("lora_A.weight", "lora_B.weight", "lora_B.bias"),
        Kind.LOHA: ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        Kind.LOKR: ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
        Kind.DIFFERENCE: ("diff", "diff_b"),
    }
)
"""The parts of each kind, by their canonical names."""

KIND_OF = MappingProxyType({part: kind for kind, parts in PARTS.items() for part in parts})
NUMBERS = ("alpha", "rank")

_LONGEST_END = 4
"""Segments, as in lora.down.<name>.weight."""

_ANY_NAME = r"(?:\.\w+)?"
"""PEFT keeps an adapter's name within the key, if it is let."""

_ENDS = MappingProxyType(
    {
        rf"(?:lora_A|lora_down|lora\.down){_ANY_NAME}\.weight": "lora_A.weight",
        rf"(?:lora_B|lora_up|lora\.up){_ANY_NAME}\.weight": "lora_B.weight",
        rf"lora_B{_ANY_NAME}\.bias": "lora_B.bias",
        **{f"{part}{_ANY_NAME}": part for kind in (Kind.LOHA, Kind.LOKR) for part in PARTS[kind]},
        "diff|w_norm": "diff",
        "diff_b|b_norm": "diff_b",
        **{number: number for number in NUMBERS},
    }
)
_UNSUPPORTED = MappingProxyType(
    {
        rf"dora_scale|lora_magnitude_vector{_ANY_NAME}(?:\.weight)?": "DoRA",
        rf"oft_\w+{_ANY_NAME}(?:\.weight)?|boft_\w+{_ANY_NAME}|rescale": "OFT",
        r"(?:lokr|hada)_t[12]|lora_mid\.weight": "Tucker factors of convolutions",
        r"on_input|ia3_l\b.*": "(IA)³",
        r"[abc][12]\.weight": "GLoRA",
        r"vera_\w+(?:\.\w+)*": "VeRA",
        r"set_weight|reshape_weight": "replaced weights",
    }
)
_TEXT_ENCODER = re.compile(
    r"(?:base_model\.model\.)?(?:text_encoder\w*\.|lora_te\d*_|te\d?\.|lora_prior_te|cond_stage_model\.|"
    r"conditioner\.|(?:model\.)?(?:language_model|visual|layers\.\d+\.(?:self_attn|mlp))\b)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """path: all before the end. part: a canonical part, "alpha" or "rank"; or else unsupported says whose it is."""

    path: str
    part: str | None = None
    unsupported: str | None = None


def parse_key(key: str) -> Key | None:
    """None where nothing in the key is known of LoRAs."""
    start = len(key) - len(".".join(key.rsplit(".", _LONGEST_END)[1:])) - 1
    if (found := _KNOWN.search(key, start)) is not None:
        return Key(path=key[: found.start()], part=_PART_NAMES[found.lastindex or 0])
    if (found := _NOT_READ.search(key, start)) is not None:
        return Key(path=key[: found.start()], unsupported=_NOT_READ_NAMES[found.lastindex or 0])
    return None


def is_of_text_encoder(key: str) -> bool:
    return _TEXT_ENCODER.match(key) is not None


def _alternatives(ends: Mapping[str, str]) -> tuple[re.Pattern[str], dict[int, str]]:
    """Each end a group of the pattern, and what it stands for by the group's number."""
    pattern = "|".join(f"({end})" for end in ends)
    return re.compile(rf"(?<=.)\.(?:{pattern})\Z"), dict(enumerate(ends.values(), start=1))


_KNOWN, _PART_NAMES = _alternatives(_ENDS)
_NOT_READ, _NOT_READ_NAMES = _alternatives(_UNSUPPORTED)
