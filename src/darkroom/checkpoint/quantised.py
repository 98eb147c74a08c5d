"""Weights stored in 8-bit floats: the scales that files of this model family keep beside them, and what is not read.

`<layer>.scale_weight` or `<layer>.weight_scale` multiplies `<layer>.weight`: a single number, or one for each row.
Scales of a layer's inputs (`scale_input`, `input_scale`) serve those who also multiply in 8 bits, and are left out.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from safetensors import safe_open

from darkroom.checkpoint.weights import StoredTensor
from darkroom.errors import BadCheckpoint

READ = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

_SCALES = ("scale_weight", "weight_scale")
_INPUT_SCALES = ("scale_input", "input_scale")
_MARKER = "scaled_fp8"
"""An empty tensor of ComfyUI's, which says that there are scales."""

_FORMAT = "comfy_quant"
"""ComfyUI's note on a layer: JSON, in bytes."""

_FORMATS_READ = frozenset({"float8_e4m3fn", "float8_e5m2"})

_FOREIGN = MappingProxyType(
    {
        "qweight": "GPTQ's, AWQ's or Nunchaku's integers",
        "absmax": "bitsandbytes' 4 bits",
        "SCB": "bitsandbytes' 8 bits",
        "weight_scale_inv": "8-bit floats scaled in blocks",
        "weight_scale_2": "4-bit floats scaled in blocks",
    }
)
"""Tensors that only forms which are not read have beside a weight."""

_REMEDY = "use the model's files in bfloat16, or in 8-bit floats with one scale for a tensor or a row"


def with_scales(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Each weight with its scale, and the names that belong to scaling left out; other names as they are.

    Raises `BadCheckpoint` that names a tensor of a form that is not read.
    """
    _check_formats(tensor for name, tensor in tensors.items() if _leaf(name) == _FORMAT)
    kept: dict[str, StoredTensor] = {}
    scales: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        layer, leaf = name.rpartition(".")[0], _leaf(name)
        weight = f"{layer}.weight"
        if leaf in _FOREIGN:
            raise BadCheckpoint(f"{tensor.file}: {name} belongs to {_FOREIGN[leaf]}, which is not read; {_REMEDY}")
        if leaf in _SCALES and weight in tensors:
            if weight in scales:
                raise BadCheckpoint(f"{tensor.file}: {weight} has two scales, {scales[weight].key} and {tensor.key}")
            scales[weight] = tensor
        elif name != _MARKER and not (leaf in (*_INPUT_SCALES, _FORMAT) and weight in tensors):
            kept[name] = tensor
    for name, tensor in kept.items():
        if tensor.dtype not in READ:
            raise BadCheckpoint(f"{tensor.file}: {name} is stored as {tensor.dtype}, which is not read; {_REMEDY}")
    return kept | {name: _scaled(kept[name], scale) for name, scale in scales.items()}


def _scaled(tensor: StoredTensor, scale: StoredTensor) -> StoredTensor:
    rows = tensor.shape[:1]
    if scale.dtype not in READ or (scale.parameters != 1 and scale.shape not in (rows, (*rows, 1))):
        raise BadCheckpoint(
            f"{scale.file}: {scale.key} is {scale.dtype} of shape {list(scale.shape)}, neither a single number nor one "
            f"for each row of {list(tensor.shape)}; {_REMEDY}"
        )
    return replace(tensor, scale=scale)


def _check_formats(notes: Iterable[StoredTensor]) -> None:
    def file_of(note: StoredTensor) -> Path:
        return note.file

    for path, in_file in groupby(sorted(notes, key=file_of), key=file_of):
        with safe_open(path, framework="np") as file:
            for note in in_file:
                text = file.get_tensor(note.key).tobytes()
                try:
                    form = json.loads(text)["format"]
                except (ValueError, TypeError, KeyError) as error:
                    raise BadCheckpoint(f"{path}: {note.key} is no note on a format; {_REMEDY}") from error
                if form not in _FORMATS_READ:
                    raise BadCheckpoint(f"{path}: {note.key} says {form}, which is not read; {_REMEDY}")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
