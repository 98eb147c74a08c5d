"""The checkpoint's tokenizer: byte-level BPE whose words are the prompts' own, in the published files."""

from pathlib import Path

from transformers import Qwen2Tokenizer

from darkroom.engine.text import DROPPED_TOKENS, IMAGE_TOKEN, PICTURE, PREFIX, SUFFIX
from darkroom.engine.tiny_tokenizer import make_tokenizer
from training.world.jobs import JOBS, Split, draft

_SCENES_READ = 400
TOKENS_A_PICTURE = 4
"""A 56 px view of a picture is 4 × 4 patches, merged two by two."""


class Vocabulary:
    """Prompts as the engine will tokenize them, in two parts: what the number of pictures decides, and the rest."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
        self.image_token: int = self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.rows: int = -(-len(self._tokenizer) // 64) * 64
        self._suffix = self._ids(SUFFIX)
        if (count := len(self._ids(PREFIX))) != DROPPED_TOKENS:
            raise ValueError(f"the prefix is {count} tokens, not {DROPPED_TOKENS}")

    def opening(self, pictures: int) -> list[int]:
        """The fixed prefix and the pictures' places."""
        ids: list[int] = []
        for token in self._ids(PREFIX + "".join(PICTURE.format(n + 1) for n in range(pictures))):
            ids.extend([token] * (TOKENS_A_PICTURE if token == self.image_token else 1))
        return ids

    def rest(self, prompt: str) -> list[int]:
        """The prompt and the fixed end."""
        return [*self._ids(prompt, split=True), *self._suffix]

    def _ids(self, text: str, *, split: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        return ids


def make_vocabulary(folder: Path, seed: int) -> dict[str, int]:
    """Learns the tokenizer from training prompts and writes it; returns every token's id."""
    prompts: dict[str, None] = {}
    for job in JOBS:
        for number in range(_SCENES_READ):
            prompts |= dict.fromkeys(sample.prompt for sample in draft(job, Split.TRAIN, seed, number).samples)
    words = PREFIX + SUFFIX + PICTURE.format(1) + "\n".join(prompts)
    return make_tokenizer(folder, words=words)
