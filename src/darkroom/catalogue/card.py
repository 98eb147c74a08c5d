"""A model's card: everything the service knows of a slug."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from darkroom.catalogue.parameter import Kind, Parameter, Value, shorten
from darkroom.errors import UnknownField

NO_ADAPTER = "none"
"""What the parameter `lora` says for no adapter at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What the engine is told where a request leaves it open."""

    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """parameters: by name, in the product page's order, extensions last. quality: the defaults for sampling; fast:
    those while the parameter `go_fast` is true, for a model that has it. Cards are checked when they are read."""

    slug: str
    title: str
    description: str
    price_micro: int
    parameters: Mapping[str, Parameter]
    quality: Sampling
    fast: Sampling | None

    @property
    def preset(self) -> str | None:
        """The adapter this model always brings: what `lora` says where it can say one thing only."""
        lora = self.parameters.get("lora")
        return lora.enum[0] if lora and len(lora.enum) == 1 and lora.enum[0] != NO_ADAPTER else None

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the picture parameters, in the prompt's order."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.type is Kind.IMAGE)

    def check(self, params: Mapping[str, object], *, text: bool) -> dict[str, Value | None]:
        """Every parameter's value, in the card's order, defaults filled in; None where there is none.

        text: see `Parameter.check`. Pictures stay as they came. Raises `UnknownField`, then `InvalidField`, for the
        first parameter at fault.
        """
        for name in params:
            if name not in self.parameters:
                near = self._nearest(name)
                raise UnknownField(
                    f"{self.slug} has no parameter {shorten(name)!r}; the nearest is {near} "
                    f"(all: {', '.join(self.parameters)})",
                    field=shorten(name),
                )
        checked: dict[str, Value | None] = {}
        for name, parameter in self.parameters.items():
            value = parameter.check(params.get(name), text=text)
            if value is None and parameter.needed:
                raise parameter.missing()
            checked[name] = _default(parameter) if value is None else value
        return checked

    def _nearest(self, name: str) -> str:
        """The first picture is `image` here and `image_1` there; either name means it."""
        wanted = shorten(name).removesuffix("_1")
        return max(self.parameters, key=lambda known: SequenceMatcher(a=wanted, b=known.removesuffix("_1")).ratio())


def _default(parameter: Parameter) -> Value | None:
    return None if parameter.default == "" else parameter.default
