"""Stored values without torch: whether they are finite, and 8-bit floats as bfloat16, which holds them all."""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from darkroom.checkpoint.weights import BITS

Words = NDArray[np.unsignedinteger]

_WORDS = MappingProxyType({8: "u1", 16: "<u2", 32: "<u4", 64: "<u8"})
_EXPONENTS = MappingProxyType({"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000})
"""The bits that are all set where a value is infinite or not a number."""

KEPT = frozenset(_EXPONENTS)


def kept_dtype(dtype: str) -> str:
    """What values of this dtype are kept as."""
    return dtype if dtype in KEPT else "BF16"


def keep(raw: bytes, dtype: str) -> tuple[bytes, bool]:
    """The same values in the dtype they are kept as, and whether all are finite."""
    words: Words = np.frombuffer(raw, _WORDS[BITS[dtype]])
    if dtype not in KEPT:
        words = _WIDENED[dtype][words]
    mask = _EXPONENTS[kept_dtype(dtype)]
    return words.tobytes(), not bool(((words & words.dtype.type(mask)) == mask).any())


def to_number(raw: bytes, dtype: str) -> float:
    """A single value."""
    if dtype in ("I64", "I32"):
        return float(int.from_bytes(raw, "little", signed=True))
    kept, dtype = keep(raw, dtype)[0], kept_dtype(dtype)
    if dtype == "BF16":
        return float(np.frombuffer(b"\0\0" + kept, "<f4")[0])
    return float(np.frombuffer(kept, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])[0])


def _bfloat16_of(exponent_bits: int, mantissa_bits: int) -> NDArray[np.uint16]:
    """Of all 256 numbers with so many bits of exponent and mantissa, the same as bfloat16 has them."""
    codes = np.arange(256, dtype=np.int64)
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (codes & (2**mantissa_bits - 1)) / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    size = np.where(exponent > 0, 1 + fraction, fraction) * np.exp2(np.maximum(exponent, 1) - bias)
    value = np.where(codes & 0x80, -size, size).astype(np.float32)
    words: NDArray[np.uint16] = (value.view(np.uint32) >> 16).astype(np.uint16)
    return words


def _e4m3() -> NDArray[np.uint16]:
    """It has no infinity, and is not a number with all bits set but the sign."""
    table = _bfloat16_of(4, 3)
    table[[0x7F, 0xFF]] = 0x7FC0
    return table


def _e5m2() -> NDArray[np.uint16]:
    """Infinite or not a number, as in IEEE's types, with all bits of the exponent set."""
    table = _bfloat16_of(5, 2)
    table[[0x7C, 0xFC]] = 0x7F80
    table[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = 0x7FC0
    return table


_WIDENED = MappingProxyType({"F8_E4M3": _e4m3(), "F8_E5M2": _e5m2()})
