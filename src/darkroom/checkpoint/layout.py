"""The published layout of a Qwen-Image-Edit checkpoint: which files it has and what their headers promise.

model_index.json   the pipeline's class and each part's
darkroom.json      optional: the areas the checkpoint works at
scheduler/         scheduler_config.json
tokenizer/         vocab.json, merges.txt, tokenizer_config.json
processor/         preprocessor_config.json
transformer/  vae/  text_encoder/
                   config.json and safetensors: one file, or shards with an index
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open

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

_STEMS = MappingProxyType(
    {"transformer": "diffusion_pytorch_model", "text_encoder": "model", "vae": "diffusion_pytorch_model"}
)
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
_BITS = MappingProxyType(
    {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
    | {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor as its file's header has it. key: its name there. dtype: safetensors' word, such as BF16."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def parameters(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def size_bytes(self) -> int:
        return self.parameters * _BITS[self.dtype] // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A part with weights. tensors: by their published name."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingSizes:
    """The areas pictures are brought to: the result, a reference for the VAE, a reference for the text encoder."""

    output_area_px: int = 1024 * 1024
    vae_area_px: int = 1024 * 1024
    condition_area_px: int = 384 * 384


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
        working_sizes=read_working_sizes(folder),
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
    return Component(
        name=name,
        class_name=class_name,
        config=read_json(folder / name / "config.json"),
        tensors={published_name(key): tensor for key, tensor in _read_tensors(folder / name, _STEMS[name]).items()},
    )


def published_name(key: str) -> str:
    """The published shards of the text encoder have `visual.…` and `model.layers.…`; what transformers 5 saves has
    `model.visual.…` and `model.language_model.layers.…`. Names of the other parts are the same everywhere."""
    if key.startswith("model.visual."):
        return key.removeprefix("model.")
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    return key


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


def read_working_sizes(folder: Path) -> WorkingSizes:
    """The areas in darkroom.json, the published ones where it is silent or absent."""
    path = folder / "darkroom.json"
    if not path.exists():
        return WorkingSizes()
    entries = read_json(path)
    known = [field.name for field in fields(WorkingSizes)]
    for name, value in entries.items():
        if name not in known:
            raise BadCheckpoint(f"{path}: unknown key {name!r}; known are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 32 * 32:
            raise BadCheckpoint(f"{path}: {name} = {value!r} must be a whole number of pixels, 1024 (32 × 32) or more")
    return WorkingSizes(**entries)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} must hold a JSON object")
    return value


def _read_tensors(folder: Path, stem: str) -> dict[str, StoredTensor]:
    single = folder / f"{stem}.safetensors"
    if single.is_file():
        return _read_header(single)
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        raise BadCheckpoint(f"{folder} has no weights: neither {single.name} nor {index.name} is there")
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise BadCheckpoint(f"{index} has no weight_map")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(placed.values()), key=str):
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise BadCheckpoint(f"{index}: {shard!r} is not the name of a file beside it")
        found = _read_header(folder / shard)
        if twice := sorted(found.keys() & tensors.keys()):
            raise BadCheckpoint(f"{folder / shard}: {twice[0]} is also in {tensors[twice[0]].file.name}")
        tensors |= found
    for name, shard in placed.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise BadCheckpoint(f"{folder / shard}: {name} is missing, which {index.name} places there")
    return tensors


def _read_header(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise BadCheckpoint(f"{path} is missing")
    try:
        with safe_open(path, framework="np") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118  not a mapping
                entry = file.get_slice(name)
                tensors[name] = StoredTensor(
                    key=name, shape=tuple(entry.get_shape()), dtype=entry.get_dtype(), file=path
                )
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path} is not a sound safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _BITS:
            raise BadCheckpoint(f"{path}: {name} is stored as {tensor.dtype}, which Darkroom does not know")
    return tensors
