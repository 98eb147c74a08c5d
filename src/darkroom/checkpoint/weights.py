"""The safetensors files of a part: which they are, and which tensors their headers promise."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError, safe_open

from darkroom.checkpoint.json_file import read_json
from darkroom.errors import BadCheckpoint

BITS = MappingProxyType(
    {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
    | {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}
)
"""Of one value, by safetensors' word for its dtype."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor as its file's header has it. key: its name there. dtype: safetensors' word, such as BF16.

    scale: what its values are to be multiplied by, a single number or one for each row.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    scale: "StoredTensor | None" = None

    @property
    def parameters(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def size_bytes(self) -> int:
        return self.parameters * BITS[self.dtype] // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """placed: the file of each tensor, by its key. total_bytes: of all tensors, where the index says."""

    placed: Mapping[str, str]
    total_bytes: int | None

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.placed.values())))


def read_weights(folder: Path, stem: str) -> dict[str, StoredTensor]:
    """By key: of the file named after `stem`, of the shards its index names, or of the folder's only safetensors file.

    Raises `BadCheckpoint` that names the file at fault.
    """
    named, index = folder / f"{stem}.safetensors", index_of(folder, stem)
    if named.is_file():
        return _read_header(named)
    if index.is_file():
        return _read_shards(index)
    match sorted(folder.glob("*.safetensors")):
        case [only]:
            return _read_header(only)
        case []:
            if foreign := next((path for path in sorted(folder.glob("*")) if path.suffix in (".gguf", ".bin")), None):
                raise BadCheckpoint(f"{foreign} is of a form that Darkroom does not read; use the safetensors files")
            raise BadCheckpoint(f"{folder} has no weights: neither {named.name} nor {index.name} is there")
        case several:
            raise BadCheckpoint(
                f"{folder} holds {several[0].name} and {several[1].name} without {index.name}; leave the one to be used"
            )


def index_of(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors.index.json"


def read_index(path: Path) -> ShardIndex:
    """Raises `BadCheckpoint` where it is not sound, or names a file that is not beside it."""
    entries = read_json(path)
    placed, metadata = entries.get("weight_map"), entries.get("metadata")
    if not isinstance(placed, dict) or not placed:
        raise BadCheckpoint(f"{path} has no weight_map")
    for shard in placed.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise BadCheckpoint(f"{path}: {shard!r} is not the name of a file beside it")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return ShardIndex(placed=placed, total_bytes=int(total) if isinstance(total, int | float) else None)


def _read_shards(path: Path) -> dict[str, StoredTensor]:
    index = read_index(path)
    tensors: dict[str, StoredTensor] = {}
    for shard in index.files:
        found = _read_header(path.parent / shard)
        if twice := sorted(found.keys() & tensors.keys()):
            raise BadCheckpoint(f"{path.parent / shard}: {twice[0]} is also in {tensors[twice[0]].file.name}")
        tensors |= found
    for name, shard in index.placed.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise BadCheckpoint(f"{path.parent / shard}: {name} is missing, which {path.name} places there")
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
        if tensor.dtype not in BITS:
            raise BadCheckpoint(f"{path}: {name} is stored as {tensor.dtype}, which Darkroom does not know")
    return tensors
