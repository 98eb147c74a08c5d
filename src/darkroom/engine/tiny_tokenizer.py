"""A small byte-level BPE tokenizer in the published files, whose prompt prefix is as long as the real one's."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from darkroom.engine.text import PREFIX

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_WORDS = PREFIX + (
    "Picture assistant Make the sky a warm sunset. Turn the cup red and put it on a wooden table. Remove the man from "
    "this photo. Add a small blue bird on the left and a white cat on the right. Change the background to a beach, "
    "keep the face. Place the product in a bright kitchen with soft light. Turn the camera to a top-down view. "
    "Apply stone texture to the mug. What is in front of the house? Let it snow, by night, in the style of a drawing."
)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_tokenizer(folder: Path, words: str = _WORDS) -> dict[str, int]:
    """Learn it from `words` and write it into `folder`; returns every token's id, the special ones last."""
    merges = _learn_merges(_split(words))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*alphabet, *map("".join, merges)])}
    special = {token: len(vocab) + index for index, token in enumerate(SPECIAL)}
    folder.mkdir(parents=True)
    _write(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    _write(folder / "added_tokens.json", special)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write(folder / "special_tokens_map.json", {"additional_special_tokens": list(SPECIAL[1:]), **named})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(index): {"content": token, **flags} for token, index in special.items()},
            "additional_special_tokens": list(SPECIAL[1:]),
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 131072,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
            **named,
        },
    )
    return vocab | special


def _split(text: str) -> Counter[tuple[str, ...]]:
    """Words as characters of the byte alphabet, with their counts."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return Counter(tuple(word) for word, _ in splitter.pre_tokenize_str(text))


def _learn_merges(words: Counter[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Byte-pair encoding to the end: until each word is one token. Ties go to the pair that sorts first."""
    merges = []
    while pairs := _count_pairs(words):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merge(word, best): count for word, count in words.items()})
    return merges


def _count_pairs(words: Counter[tuple[str, ...]]) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            pairs[pair] += count
    return pairs


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
