"""One change of one module, as it is stored: which tensors it is made of, and whether they fit the module."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from darkroom.checkpoint.weights import BITS
from darkroom.errors import LoraInconsistent, LoraRankInvalid, LoraShapeMismatch
from darkroom.lora.header import Entry, quoted
from darkroom.lora.keys import Kind

_OF_ALL_ROWS = frozenset(
    {"lora_B.weight", "lora_B.bias", "hada_w1_a", "hada_w2_a", "lokr_w1", "lokr_w1_a", "diff", "diff_b"}
)
"""Parts whose rows are those of the module's output, or come before them: a fused matrix is split by them."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A tensor, or some of its rows. begin, end: bytes from the start of the data."""

    key: str
    dtype: str
    shape: Shape
    begin: int
    end: int

    @classmethod
    def slice(cls, entry: Entry, part: str, index: int, count: int) -> "Stored":
        """Of a tensor for `count` modules fused, what belongs to the one with this index.

        Raises `LoraShapeMismatch` where its rows can't be shared out.
        """
        shape, begin, size_bytes = entry.shape, entry.begin, entry.end - entry.begin
        if count > 1 and part in _OF_ALL_ROWS:
            if not shape or shape[0] % count:
                raise LoraShapeMismatch(f"{quoted(entry.key)} is {_of(shape)}, which is not for {count} modules alike")
            shape, size_bytes = (shape[0] // count, *shape[1:]), size_bytes // count
            begin += index * size_bytes
        return cls(key=entry.key, dtype=entry.dtype, shape=shape, begin=begin, end=begin + size_bytes)

    @property
    def parameters(self) -> int:
        return (self.end - self.begin) * 8 // BITS[self.dtype]


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """module: its published name. path: the file's name for it, without prefixes: another one where several are fused.
    parts: by their canonical names. alpha, stated_rank: single numbers of the file."""

    module: str
    path: str
    kind: Kind
    parts: Mapping[str, Stored]
    alpha: Entry | None
    stated_rank: Entry | None

    @property
    def rank(self) -> int | None:
        """What alpha is divided by; None where nothing is decomposed."""
        for part, axis in (("lora_A.weight", 0), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
            if part in self.parts:
                return self.parts[part].shape[axis]
        return None


def check_term(term: Term, shapes: Mapping[str, Shape]) -> None:
    """Raises `LoraInconsistent`, `LoraRankInvalid` or `LoraShapeMismatch`, naming tensor and module."""
    weight, bias = f"{term.module}.weight", f"{term.module}.bias"
    if term.kind == Kind.DIFFERENCE:
        _expect(term, "diff", shapes.get(weight))
        _expect(term, "diff_b", shapes.get(bias))
        return
    for number in (term.alpha, term.stated_rank):
        if number is not None and prod(number.shape) != 1:
            raise LoraShapeMismatch(f"{quoted(number.key)} is {_of(number.shape)} and should be a single number")
    if weight not in shapes or len(shapes[weight]) != 2:
        raise LoraShapeMismatch(
            f"{quoted(next(iter(term.parts.values())).key)} is for {term.module}, which is no matrix"
        )
    rows, columns = shapes[weight]
    match term.kind:
        case Kind.LORA:
            _product(term, ("lora_A.weight", "lora_B.weight"), (rows, columns), order=(1, 0))
            _expect(term, "lora_B.bias", shapes.get(bias))
        case Kind.LOHA:
            _product(term, ("hada_w1_a", "hada_w1_b"), (rows, columns))
            _product(term, ("hada_w2_a", "hada_w2_b"), (rows, columns))
        case Kind.LOKR:
            _check_kronecker(term, rows, columns)


def _check_kronecker(term: Term, rows: int, columns: int) -> None:
    sides = []
    for side in ("lokr_w1", "lokr_w2"):
        whole, pair = term.parts.get(side), [name for name in (f"{side}_a", f"{side}_b") if name in term.parts]
        if whole is not None and pair:
            raise LoraInconsistent(f"{quoted(whole.key)} is there whole and in factors")
        if whole is None:
            sides.append(_product(term, (f"{side}_a", f"{side}_b"), None))
        elif len(whole.shape) == 2:
            sides.append(whole.shape)
        else:
            raise LoraShapeMismatch(f"{quoted(whole.key)} is {_of(whole.shape)} and should be a matrix")
    (first_rows, first_columns), (second_rows, second_columns) = sides
    if (first_rows * second_rows, first_columns * second_columns) != (rows, columns):
        raise LoraShapeMismatch(
            f"The LoKr for {term.module} makes {_of((first_rows * second_rows, first_columns * second_columns))}; "
            f"the module is {_of((rows, columns))}"
        )


def _product(term: Term, names: tuple[str, str], expected: Shape | None, *, order: tuple[int, int] = (0, 1)) -> Shape:
    """Check the product of two factors, the left at order[0] of `names`, and give its shape."""
    for name in names:
        if name not in term.parts:
            there = next(iter(term.parts.values())).key
            raise LoraInconsistent(f"{term.module} has {quoted(there)} without its {name}")
    left, right = (term.parts[names[index]] for index in order)
    for each in (left, right):
        if len(each.shape) != 2:
            raise LoraShapeMismatch(f"{quoted(each.key)} is {_of(each.shape)} and should be a matrix")
    rank, made = right.shape[0], (left.shape[0], right.shape[1])
    if left.shape[1] != rank:
        raise LoraShapeMismatch(
            f"{quoted(left.key)} is {_of(left.shape)} and {quoted(right.key)} is {_of(right.shape)}: their ranks differ"
        )
    if expected is not None and made != expected:
        raise LoraShapeMismatch(
            f"{quoted(left.key)} and {quoted(right.key)} make {_of(made)}; {term.module} is {_of(expected)}"
        )
    if not 1 <= rank <= max(made):
        raise LoraRankInvalid(f"{quoted(right.key)} has rank {rank}, which a matrix of {_of(made)} can't use")
    return made


def _expect(term: Term, name: str, shape: Shape | None) -> None:
    stored = term.parts.get(name)
    if stored is not None and stored.shape != shape:
        _refuse_shape(stored, term.module, shape)


def _refuse_shape(stored: Stored, module: str, shape: Shape | None) -> NoReturn:
    there = f"is {_of(shape)}" if shape is not None else "has no such tensor"
    raise LoraShapeMismatch(f"{quoted(stored.key)} is {_of(stored.shape)}; {module} {there}")


def _of(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"
