"""What a file would do to the model, and everything that is wrong with it, from its header alone."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from darkroom.errors import LoraError, LoraInconsistent, LoraNotLora, LoraUnsupported, LoraWrongModel
from darkroom.lora.foreign import guess_model
from darkroom.lora.header import Entry, Header, quoted
from darkroom.lora.keys import NUMBERS, PARTS, Kind, is_of_text_encoder, parse_key
from darkroom.lora.modules import Modules, Place
from darkroom.lora.scale import PeftNote
from darkroom.lora.term import Stored, Term, check_term

READ = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
READ_NUMBERS = READ | {"I64", "I32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """layouts: whose names the keys are. problems: what keeps the file from being used, gravest first."""

    layouts: tuple[str, ...]
    terms: tuple[Term, ...]
    problems: tuple[LoraError, ...]

    def raise_first(self) -> None:
        if self.problems:
            raise self.problems[0]


@dataclass(slots=True)
class _Sorted:
    """A file's tensors by what they are."""

    known: list[tuple[Entry, Place, str]]
    unsupported: dict[str, list[str]]
    strangers: list[str]
    text_encoder: list[str]
    others: list[str]


def survey(header: Header, modules: Modules) -> Survey:
    """Never raises for what is in the file: that goes into `problems`."""
    tensors = _sort(header.entries.values(), modules)
    problems: list[LoraError] = [*_check_kinds(tensors, len(header.entries))]
    try:
        PeftNote.read(header.metadata)
    except LoraError as error:
        problems.append(error)
    places, twice = _gather(tensors.known)
    problems += twice
    terms: list[Term] = []
    for place, parts in places:
        try:
            terms += _terms(place, parts)
        except LoraError as error:
            problems.append(error)
    sound: list[Term] = []
    for term in terms:
        try:
            check_term(term, modules.shapes)
            sound.append(term)
        except LoraError as error:
            problems.append(error)
    return Survey(
        layouts=tuple(sorted({place.layout for place, _ in places})), terms=tuple(sound), problems=tuple(problems)
    )


def _sort(entries: Iterable[Entry], modules: Modules) -> _Sorted:
    tensors = _Sorted([], defaultdict(list), [], [], [])
    for entry in entries:
        key = parse_key(entry.key)
        if is_of_text_encoder(entry.key):
            tensors.text_encoder.append(entry.key)
        elif key is None:
            (tensors.unsupported["whole weights"] if modules.is_parameter(entry.key) else tensors.others).append(
                entry.key
            )
        elif (place := modules.find(key.path)) is None:
            tensors.strangers.append(entry.key)
        elif key.part is None:
            tensors.unsupported[key.unsupported or ""].append(entry.key)
        elif entry.dtype not in (READ_NUMBERS if key.part in NUMBERS else READ):
            tensors.unsupported[f"values stored as {entry.dtype}"].append(entry.key)
        else:
            tensors.known.append((entry, place, key.part))
    return tensors


def _check_kinds(tensors: _Sorted, count: int) -> Iterator[LoraError]:
    whole = len(tensors.unsupported.get("whole weights", ())) + len(tensors.others)
    if whole == count:
        model = guess_model(tensors.others)
        yield LoraNotLora(
            f"None of its {count} tensors is a LoRA's: {examples([*tensors.others, *_all(tensors)])}"
            + (f"; they look like those of {model}" if model else "")
        )
        return
    strangers = tensors.strangers + tensors.others
    if strangers:
        model = guess_model(strangers)
        yield LoraWrongModel(
            (f"It is a LoRA for {model}" if model else "It does not fit this model")
            + f": {len(strangers)} of {count} tensors belong to nothing here, {examples(strangers)}; "
            "choose a LoRA for Qwen-Image-Edit"
        )
    if tensors.text_encoder:
        yield LoraUnsupported(
            f"It changes the text encoder ({len(tensors.text_encoder)} of {count} tensors, "
            f"{examples(tensors.text_encoder)}); only LoRAs for the transformer are merged"
        )
    for what, keys in sorted(tensors.unsupported.items()):
        yield LoraUnsupported(
            f"It has {what} ({len(keys)} of {count} tensors, {examples(keys)}), which is not merged; "
            "use a plain LoRA, LoHa or LoKr in floating point"
        )


def _all(tensors: _Sorted) -> Iterator[str]:
    for keys in tensors.unsupported.values():
        yield from keys


def examples(keys: Collection[str], count: int = 3) -> str:
    first = ", ".join(quoted(key) for key in list(keys)[:count])
    return f"{first} …" if len(keys) > count else first


def _gather(
    known: Iterable[tuple[Entry, Place, str]],
) -> tuple[list[tuple[Place, dict[str, Entry]]], list[LoraError]]:
    """The parts of each place; and of what is there twice, an error each."""
    places: dict[str, tuple[Place, dict[str, Entry]]] = {}
    problems: list[LoraError] = []
    for entry, place, part in known:
        _, parts = places.setdefault(place.path, (place, {}))
        if part in parts:
            problems.append(
                LoraInconsistent(f"{quoted(parts[part].key)} and {quoted(entry.key)} are for the same place")
            )
        parts[part] = entry
    changed = Counter(module for place, _ in places.values() for module in place.modules)
    problems += [
        LoraInconsistent(f"{quoted(module)} is changed both by itself and as part of a fused matrix")
        for module, times in changed.items()
        if times > 1
    ]
    return list(places.values()), problems


def _terms(place: Place, parts: Mapping[str, Entry]) -> Iterator[Term]:
    kinds = [kind for kind in Kind if not parts.keys().isdisjoint(PARTS[kind])]
    factored = [kind for kind in kinds if kind != Kind.DIFFERENCE]
    if len(factored) > 1:
        raise LoraUnsupported(f"{quoted(place.path)} has both a {factored[0]} and a {factored[1]}; use one of them")
    if not factored and (numbers := [parts[number].key for number in NUMBERS if number in parts]):
        raise LoraInconsistent(f"{quoted(numbers[0])} stands without the matrices that it scales")
    for index, module in enumerate(place.modules):
        for kind in kinds:
            yield Term(
                module=module,
                path=place.path,
                kind=kind,
                parts={
                    part: Stored.slice(parts[part], part, index, len(place.modules))
                    for part in PARTS[kind]
                    if part in parts
                },
                alpha=parts.get("alpha") if kind in factored else None,
                stated_rank=parts.get("rank") if kind in factored else None,
            )
