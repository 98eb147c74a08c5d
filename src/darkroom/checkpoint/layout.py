"""The published layout of a Qwen-Image-Edit checkpoint: which files it has and what their headers promise.

model_index.json   the pipeline's class and each part's
darkroom.json      optional: the areas it works at, its own LoRAs and guidance (see declaration.py)
scheduler/         scheduler_config.json
tokenizer/         vocab.json, merges.txt, tokenizer_config.json
processor/         preprocessor_config.json
transformer/  vae/  text_encoder/
                   config.json and safetensors: one file, or shards with an index

A transformer may also be one file of any name, as ComfyUI keeps it, and then needs no config.json.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from darkroom.checkpoint.declaration import WorkingSizes, read_declaration
from darkroom.checkpoint.json_file import read_json
from darkroom.checkpoint.quantised import with_scales
from darkroom.checkpoint.single_file import REFERENCES_AT_ZERO, make_config, without_prefix
from darkroom.checkpoint.weights import StoredTensor, read_weights
from darkroom.errors import BadCheckpoint

PIPELINE = "QwenImageEditPlusPipeline"
PARTS = MappingProxyType(
    {
        "transformer": "QwenImageTransformer2DModel",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "vae": "AutoencoderKLQwenImage",
    }
)
"""The parts that have weights, with the classes they must be."""

STEMS = MappingProxyType(
    {"transformer": "diffusion_pytorch_model", "text_encoder": "model", "vae": "diffusion_pytorch_model"}
)
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
SMALL_FILES = (
    "model_index.json",
    *(f"{part}/config.json" for part in PARTS),
    "scheduler/scheduler_config.json",
    "processor/preprocessor_config.json",
    *(f"tokenizer/{name}" for name in _TOKENIZER_FILES),
)
"""What a published checkpoint has beside its weights and their indices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A part with weights. tensors: by their published name."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    def under(self, prefix: str) -> "Component":
        """Of a module in it: the tensors with this prefix, by what follows it."""
        tensors = {name.removeprefix(prefix): each for name, each in self.tensors.items() if name.startswith(prefix)}
        return replace(self, tensors=tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A checkpoint folder whose files are all there and whose headers are sound."""

    folder: Path
    transformer: Component
    text_encoder: Component
    vae: Component
    scheduler: Mapping[str, Any]
    processor: Mapping[str, Any]
    tokenizer: Path
    working_sizes: WorkingSizes


def read_layout(folder: Path) -> Layout:
    """Raises `BadCheckpoint` that names the first file or entry at fault."""
    index = read_model_index(folder)
    return Layout(
        folder=folder,
        **{part: read_component(folder, part, index) for part in PARTS},
        scheduler=read_scheduler(folder),
        processor=read_processor(folder),
        tokenizer=find_tokenizer(folder),
        working_sizes=read_declaration(folder).working_sizes,
    )


def read_model_index(folder: Path) -> Mapping[str, str]:
    """The class of each part by its name. The pipeline must be the one Darkroom runs."""
    index = read_json(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline != PIPELINE:
        raise BadCheckpoint(f"{folder / 'model_index.json'}: the pipeline is {pipeline}; Darkroom runs {PIPELINE}")
    return {
        name: entry[1]
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    }


def read_component(folder: Path, name: str, index: Mapping[str, str]) -> Component:
    class_name = index.get(name)
    if class_name != PARTS[name]:
        raise BadCheckpoint(
            f"{folder / 'model_index.json'}: {name} is {class_name or 'missing'}; Darkroom runs {PARTS[name]}"
        )
    tensors = with_scales(_renamed(read_weights(folder / name, STEMS[name]), _RENAME.get(name, str)))
    path = folder / name / "config.json"
    config = _read_transformer_config(path, tensors) if name == "transformer" else read_json(path)
    if config.get("tie_word_embeddings") and "lm_head.weight" in tensors:
        # Of two names for one tensor a file may keep either.
        tensors.setdefault("model.embed_tokens.weight", tensors["lm_head.weight"])
    return Component(name=name, class_name=class_name, config=config, tensors=tensors)


def _read_transformer_config(path: Path, tensors: dict[str, StoredTensor]) -> dict[str, Any]:
    """Takes ComfyUI's marker out of `tensors`."""
    files = {tensor.file for tensor in tensors.values()}
    at_zero = tensors.pop(REFERENCES_AT_ZERO, None) is not None
    if not path.exists() and len(files) == 1:
        return make_config(tensors, files.pop(), zero_cond_t=at_zero)
    config = read_json(path)
    if at_zero and not config.get("zero_cond_t"):
        raise BadCheckpoint(f"{path}: zero_cond_t is not set, but the weights hold {REFERENCES_AT_ZERO}; set it")
    return config


def _renamed(stored: Mapping[str, StoredTensor], rename: Callable[[str], str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for key, tensor in stored.items():
        if (other := tensors.setdefault(rename(key), tensor)) is not tensor:
            raise BadCheckpoint(f"{tensor.file}: {key} and {other.key} are names of the same tensor")
    return tensors


def published_name(key: str) -> str:
    """The published shards of the text encoder have `visual.…` and `model.layers.…`; what transformers 5 saves has
    `model.visual.…` and `model.language_model.layers.…`. Names of the other parts are the same everywhere."""
    if key.startswith("model.visual."):
        return key.removeprefix("model.")
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    return key


_RENAME: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"transformer": without_prefix, "text_encoder": published_name}
)
"""From a file's key to the published name, for the parts whose files are not all alike."""


def read_scheduler(folder: Path) -> Mapping[str, Any]:
    return read_json(folder / "scheduler" / "scheduler_config.json")


def read_processor(folder: Path) -> Mapping[str, Any]:
    return read_json(folder / "processor" / "preprocessor_config.json")


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer's folder."""
    for name in _TOKENIZER_FILES:
        if not (folder / "tokenizer" / name).is_file():
            raise BadCheckpoint(f"{folder / 'tokenizer' / name} is missing")
    return folder / "tokenizer"
