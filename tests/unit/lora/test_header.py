"""Headers of strangers' files: sound ones are read as the library reads them, all others refused in their own way."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from darkroom.errors import LoraError, LoraHeaderInvalid, LoraNotSafetensors, LoraOverlapping, LoraTruncated
from darkroom.lora.header import MAX_HEADER_BYTES, header_bytes, parse_header, read_header


def framed(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def a_file(data: bytes = bytes(8), **tensors: object) -> bytes:
    return framed(json.dumps(tensors).encode(), data)


def tensor(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def parse(file: bytes) -> object:
    return parse_header(file, len(file))


def test_a_sound_header_is_read() -> None:
    """Names, shapes, dtypes, places and notes, as the library wrote them; from the first bytes alone."""
    values = {"b": np.arange(6, dtype="f4").reshape(2, 3), "a": np.ones(4, "f2"), "n": np.zeros((), "f8")}
    file = save(values, {"note": "x"})
    head = file[: header_bytes(file[:8])]
    header = parse_header(head, len(file))
    assert header.metadata == {"note": "x"}
    assert header.data_begin == len(head)
    for name, entry in header.entries.items():
        raw = file[header.data_begin + entry.begin : header.data_begin + entry.end]
        assert raw == values[name].tobytes()
        assert entry.shape == values[name].shape
    assert {name: entry.dtype for name, entry in header.entries.items()} == {"a": "F16", "b": "F32", "n": "F64"}


REFUSED = {
    "a web page": (b"<!DOCTYPE html><html>", LoraNotSafetensors, "a web page"),
    "a zip": (b"PK\x03\x04" + bytes(20), LoraNotSafetensors, "pickle of torch's"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(20), LoraNotSafetensors, "a pickle"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", LoraNotSafetensors, "Git LFS"),
    "a page cut short": (b"<html>", LoraNotSafetensors, "a web page"),
    "GGUF": (b"GGUF" + bytes(20), LoraNotSafetensors, "GGUF"),
    "an answer in JSON": (b'{"error": "gone"}', LoraNotSafetensors, "JSON"),
    "empty": (b"", LoraTruncated, "0 bytes"),
    "a length alone": (bytes(7), LoraTruncated, "7 bytes"),
    "a length of nothing": (framed(b""), LoraHeaderInvalid, "0 bytes long"),
    "a length beyond reason": ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", LoraHeaderInvalid, "bytes long"),
    "cut within the header": (a_file(a=tensor())[:20], LoraTruncated, "within its header"),
    "cut within the data": (a_file(a=tensor())[:-1], LoraTruncated, "8 bytes of data are promised, 7 are there"),
    "more than it says": (a_file(a=tensor()) + b"x", LoraHeaderInvalid, "nothing claims the last 1 bytes"),
    "no JSON": (framed(b"no JSON at all"), LoraHeaderInvalid, "not JSON"),
    "broken JSON": (framed(b'{"a": '), LoraHeaderInvalid, "not sound JSON"),
    "broken text": (framed(b'{"\xff": 1}'), LoraHeaderInvalid, "not sound JSON"),
    "deep JSON": (framed(b'{"a":' + b"[" * 200_000), LoraHeaderInvalid, "not sound JSON"),
    "no number": (framed(b'{"a": NaN}'), LoraHeaderInvalid, "NaN"),
    "twice": (framed(b'{"a": 1, "a": 1}'), LoraHeaderInvalid, "'a' twice"),
    "notes that are no table": (a_file(__metadata__=[]), LoraHeaderInvalid, "__metadata__"),
    "notes that are no text": (a_file(__metadata__={"a": 1}), LoraHeaderInvalid, "__metadata__"),
    "no table": (a_file(a=[]), LoraHeaderInvalid, "not just dtype"),
    "one thing more": (a_file(a=tensor(more=1)), LoraHeaderInvalid, "not just dtype"),
    "an unknown dtype": (a_file(a=tensor("F33")), LoraHeaderInvalid, "'F33'"),
    "a dtype that is no word": (a_file(a=tensor([])), LoraHeaderInvalid, "unknown"),
    "a negative side": (a_file(a=tensor(shape=[-2])), LoraHeaderInvalid, "shape"),
    "half a side": (a_file(a=tensor(shape=[2.0])), LoraHeaderInvalid, "shape"),
    "true for a side": (a_file(a=tensor(shape=[True, 2])), LoraHeaderInvalid, "shape"),
    "too many sides": (a_file(a=tensor(shape=[1] * 8 + [2])), LoraHeaderInvalid, "shape"),
    "one offset": (a_file(a=tensor(offsets=[8])), LoraHeaderInvalid, "data_offsets"),
    "an end before its beginning": (a_file(a=tensor(offsets=[8, 0])), LoraHeaderInvalid, "data_offsets"),
    "a lie about its size": (a_file(a=tensor(shape=[3])), LoraHeaderInvalid, "does not take the 8 bytes"),
    "an overflow": (a_file(a=tensor(shape=[2**47] * 8)), LoraHeaderInvalid, "does not take"),
    "a name without end": (a_file(**{"x" * 513: tensor()}), LoraHeaderInvalid, "a name of 513 characters"),
    "overlapping": (a_file(a=tensor(), b=tensor(shape=[1], offsets=[4, 8])), LoraOverlapping, "'b' overlaps"),
    "a gap": (a_file(a=tensor(shape=[1], offsets=[4, 8])), LoraHeaderInvalid, "bytes before 'a'"),
}


@pytest.mark.parametrize(("file", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, file: bytes, kind: type[LoraError], words: str) -> None:
    """With an error of its own, whether the file is here or only its first bytes."""
    path = tmp_path / "file"
    path.write_bytes(file)
    with pytest.raises(kind, match=words):
        parse(file)
    with pytest.raises(kind, match=words):
        read_header(path)


@pytest.mark.parametrize("length", [60, 123, 640])
def test_a_header_is_not_taken_for_something_else(length: int) -> None:
    """Lengths whose first bytes are those of a web page, of JSON and of a pickle are lengths all the same."""
    text = json.dumps({"a": tensor(shape=[], dtype="U8", offsets=[0, 1])}, separators=(",", ":")).encode()
    file = framed(text.ljust(length), b"x")
    assert parse_header(file, len(file)).entries.keys() == {"a"}


def test_a_long_name_is_not_repeated_whole() -> None:
    """A message quotes no more of a stranger's file than a reader can use."""
    with pytest.raises(LoraHeaderInvalid) as caught:
        parse(a_file(**{"x" * 100_000: tensor()}))
    assert len(caught.value.message) < 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "F4", "X"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | JSON,
    }
)
DOCUMENT = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]) | st.text(max_size=3), ENTRY | JSON, max_size=3)


@given(
    text=DOCUMENT.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=64),
    data=st.binary(max_size=64),
)
def test_any_bytes_are_read_or_refused(text: bytes, data: bytes) -> None:
    """Nothing but a `LoraError` is raised, and what is read claims every byte of the data exactly once."""
    file = framed(text, data)
    try:
        header = parse_header(file, len(file))
    except LoraError:
        return
    places = sorted((entry.begin, entry.end) for entry in header.entries.values())
    assert sum(end - begin for begin, end in places) == len(data)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))


SHAPES = st.lists(st.integers(0, 3), max_size=3)
DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i8"])


@given(tensors=st.dictionaries(st.text(max_size=8), st.tuples(SHAPES, DTYPES), min_size=1, max_size=4))
def test_whatever_the_library_writes_is_read(tensors: dict[str, tuple[list[int], str]]) -> None:
    """Every file of the library's own is sound, and its tensors have the shapes that the library reads."""
    tensors.pop("__metadata__", None)
    file = save({name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}, {"n": "x"})
    header = parse_header(file, len(file))
    assert {name: entry.shape for name, entry in header.entries.items()} == {
        name: value.shape for name, value in load(file).items()
    }
