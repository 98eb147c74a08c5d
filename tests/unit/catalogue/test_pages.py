"""The five cards against pages.json: what their product pages say, transcribed.

The pages show ten of eleven aspect ratios and ten of fourteen adapters ("+1 more", "+4 more"); the samples on the pages
and the sibling models name the rest.
"""

import json
from pathlib import Path

import pytest

from darkroom.catalogue import Kind, read_catalogue

PAGES = json.loads((Path(__file__).parent / "pages.json").read_text())
SAMPLING = ("num_inference_steps", "guidance_scale", "negative_prompt")
STRENGTHS = ("lora_scale", "lora_2_scale", "lora_3_scale")
REQUIRED_AND_SENT_AS_NULL = ("image_2", "image_3")
"""On qwen-image-edit-plus: marked as required, and null in the page's own sample."""


@pytest.fixture(scope="module")
def catalogue():
    return read_catalogue()


@pytest.mark.parametrize("slug", PAGES)
class TestPage:
    def test_parameters_and_their_order(self, catalogue, slug):
        """A card has its page's parameters, in the page's order, and then ours, marked as extensions."""
        parameters = catalogue[slug].parameters
        ours = [*STRENGTHS, "go_fast", *SAMPLING] if "lora" in parameters else [*SAMPLING]
        assert [*parameters] == [told["name"] for told in PAGES[slug]] + ours
        assert [name for name, parameter in parameters.items() if parameter.extension] == ours

    def test_types(self, catalogue, slug):
        """A picture is what the page calls a string (uri); all else has the page's type."""
        for told in PAGES[slug]:
            kind = catalogue[slug].parameters[told["name"]].type
            assert ("string (uri)" if kind is Kind.IMAGE else kind) == told["type"]

    def test_required(self, catalogue, slug):
        """Required or optional as the page marks it."""
        for told in PAGES[slug]:
            assert catalogue[slug].parameters[told["name"]].required == told["required"], told["name"]

    def test_defaults(self, catalogue, slug):
        """The page's default; null and none at all are the same."""
        for told in PAGES[slug]:
            default = catalogue[slug].parameters[told["name"]].default
            assert (type(default), default) == (type(told.get("default")), told.get("default")), told["name"]

    def test_enums_and_ranges(self, catalogue, slug):
        """The page's values, in its order, and its bounds."""
        for told in PAGES[slug]:
            parameter = catalogue[slug].parameters[told["name"]]
            assert [*parameter.enum] == told.get("enum", []), told["name"]
            assert (parameter.minimum, parameter.maximum) == (told.get("minimum"), told.get("maximum")), told["name"]

    def test_what_is_needed(self, catalogue, slug):
        """Only the prompt and the first picture can't be done without, whatever the page marks."""
        card = catalogue[slug]
        needed = {name for name, parameter in card.parameters.items() if parameter.needed}
        assert needed == {"prompt", card.pictures[0]}
        marked = {told["name"] for told in PAGES[slug] if told["required"]}
        relaxed = {*REQUIRED_AND_SENT_AS_NULL} if slug == "qwen-image-edit-plus" else set()
        assert marked - needed == relaxed


def test_fifteen_models(catalogue):
    """Every model of the family is there, the plain one first."""
    siblings = (
        "add-people blend-it eigen-banana eraser face-to-portrait group-photo multi-lora multiple-angle next-scene "
        "product-photography relight remove-lighting texture-apply texture-extract"
    )
    assert [*catalogue] == ["qwen-image-edit-plus", *(f"qwen-image-edit-plus-{name}" for name in siblings.split())]


def test_presets(catalogue):
    """Each sibling brings the adapter it is named for; each of them can be had from multi-lora too."""
    for slug, card in catalogue.items():
        name = slug.removeprefix("qwen-image-edit-plus").removeprefix("-").replace("-", "_")
        assert card.preset == (None if name in ("", "multi_lora") else name)
    presets = {card.preset for card in catalogue.values()} - {None}
    assert {*catalogue["qwen-image-edit-plus-multi-lora"].parameters["lora"].enum} == presets | {"none"}


def test_siblings_differ_in_their_adapter_only(catalogue):
    """The ten without a page take what product-photography takes, but for the adapter."""
    like = catalogue["qwen-image-edit-plus-product-photography"].parameters
    for slug, card in catalogue.items():
        if slug not in PAGES:
            assert [*card.parameters] == [*like]
            assert [name for name in like if card.parameters[name] != like[name]] == ["lora"]


def test_sampling(catalogue):
    """40 steps under guidance by default; go_fast takes 8, and is what the plain model does unless told otherwise."""
    for slug, card in catalogue.items():
        assert (card.quality.num_inference_steps, card.quality.guidance_scale) == (40, 4.0)
        assert card.quality.negative_prompt == " "
        assert card.parameters["go_fast"].default == (slug == "qwen-image-edit-plus")
        fast = card.fast
        assert (fast.num_inference_steps, fast.guidance_scale, fast.negative_prompt) == (8, 4.0, " ")


def test_words_and_prices(catalogue):
    """Every card can be told apart by its words, and costs something."""
    for field in ("title", "description"):
        assert len({getattr(card, field) for card in catalogue.values()}) == len(catalogue)
    assert all(card.price_micro > 0 for card in catalogue.values())
