"""The checkpoint that comes with the package."""

import hashlib
import json

from darkroom.checkpoint.declaration import read_declaration
from darkroom.checkpoint.inspect import inspect
from darkroom.checkpoint.locate import NANO
from darkroom.lora.base import Base
from darkroom.lora.header import header_bytes
from darkroom.lora.presets import read_presets

MAX_BYTES, MAX_FILE_BYTES = 32 * 2**20, 16 * 2**20


def test_the_files_are_those_of_the_manifest():
    """Every file that ships is listed with its size and digest, nothing else is there, and all is as small as told."""
    listed = json.loads((NANO / "manifest.json").read_text())
    files = {path.relative_to(NANO).as_posix(): path for path in NANO.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert max(sizes.values()) <= MAX_FILE_BYTES
    assert sum(sizes.values()) <= MAX_BYTES
    del files["manifest.json"]
    found = {
        name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": sizes[name]}
        for name, path in files.items()
    }
    assert found == listed


def test_it_is_whole():
    """Its parts fit their configs, and every preset and go_fast have a LoRA that fits."""
    report = inspect(NANO)
    assert report.problems == ()
    loras = read_declaration(NANO).loras
    assert loras.keys() == read_presets(None).keys() - {"lightning_4_steps"}
    base = Base(str(NANO))
    for file in loras.values():
        data = file.read_bytes()
        base.check(data[: header_bytes(data)], len(data))
