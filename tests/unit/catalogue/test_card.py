"""A card's check of a whole request."""

import pytest

from darkroom.catalogue import read_catalogue
from darkroom.errors import InvalidField, UnknownField

PHOTO = "https://example.org/a.jpg"


@pytest.fixture(scope="module")
def catalogue():
    return read_catalogue()


@pytest.fixture(scope="module")
def plus(catalogue):
    return catalogue["qwen-image-edit-plus"]


@pytest.fixture(scope="module")
def angle(catalogue):
    return catalogue["qwen-image-edit-plus-multiple-angle"]


def test_defaults_are_filled_in(plus):
    """What was not sent has the card's default, in the card's order; what has none is None."""
    found = plus.check({"prompt": "Make it snow", "image": PHOTO}, text=False)
    assert found == {
        "image": PHOTO,
        "image_2": None,
        "image_3": None,
        "prompt": "Make it snow",
        "aspect_ratio": "match_input_image",
        "base64": False,
        "go_fast": True,
        "image_format": "webp",
        "quality": 90,
        "seed": 760941192,
        "num_inference_steps": None,
        "guidance_scale": None,
        "negative_prompt": None,
    }
    assert [*found] == [*plus.parameters]


def test_null_and_empty_are_as_if_not_sent(plus):
    """A request may name every parameter and leave it open."""
    bare = {"prompt": "Make it snow", "image": PHOTO}
    for nothing in (None, ""):
        assert plus.check(dict.fromkeys(plus.parameters, nothing) | bare, text=False) == plus.check(bare, text=False)


def test_an_empty_default_is_none(catalogue):
    """Where a page's default is "", nothing comes of it."""
    found = catalogue["qwen-image-edit-plus-texture-apply"].check({"prompt": "Oak", "image_1": PHOTO}, text=False)
    assert [found[name] for name in ("image_3", "lora_2_url", "lora_3_url")] == [None, None, None]


@pytest.mark.parametrize("slug", read_catalogue())
def test_a_request_needs_a_prompt_and_a_picture(catalogue, slug):
    """Without either, the one that is missing is named; a default does not stand in for a required prompt."""
    card = catalogue[slug]
    good = {"prompt": "Make it snow", card.pictures[0]: PHOTO}
    card.check(good, text=False)
    for name in good:
        for without in ({name: None}, {name: ""}):
            with pytest.raises(InvalidField, match=f"^{name} is required: ") as caught:
                card.check(good | without, text=False)
            assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("promt", "prompt"),
        ("Seed", "seed"),
        ("image_1", "image"),
        ("image_url", "image"),
        ("aspectRatio", "aspect_ratio"),
        ("inference_steps", "num_inference_steps"),
        ("x" * 5000, ""),
    ],
)
def test_unknown_fields_are_named_with_the_nearest_known(plus, name, near):
    """A misspelt field is an error, with the name that was likely meant."""
    with pytest.raises(UnknownField, match=rf"the nearest is {near}") as caught:
        plus.check({"prompt": "p", "image": PHOTO, name: 1}, text=False)
    assert caught.value.field == name[:60] + "…" * (len(name) > 60)
    assert len(caught.value.message) < 400


def test_the_first_picture_by_its_other_name(angle):
    """Who sends `image` where it is called image_1 is told so."""
    with pytest.raises(UnknownField, match="the nearest is image_1 "):
        angle.check({"prompt": "p", "image": PHOTO}, text=False)


def test_unknown_fields_come_first(plus):
    """A misspelt required field is reported as unknown, not as missing."""
    with pytest.raises(UnknownField, match="'promp'"):
        plus.check({"promp": "p", "image": PHOTO}, text=False)


def test_a_form(angle):
    """A multipart request's text is coerced and its file left as it is."""
    found = angle.check(
        {"prompt": "Turn", "image_1": b"\xff\xd8\xff", "seed": "7", "base64": "true", "quality": "80"}, text=True
    )
    assert (found["seed"], found["base64"], found["quality"], found["image_1"]) == (7, True, 80, b"\xff\xd8\xff")


def test_prompt_length(plus):
    """A prompt has at most 5,000 characters."""
    plus.check({"prompt": "x" * 5000, "image": PHOTO}, text=False)
    with pytest.raises(InvalidField, match="at most 5,000 characters; got 5,001 characters"):
        plus.check({"prompt": "x" * 5001, "image": PHOTO}, text=False)


def test_seed_bounds_are_each_models_own(plus, angle):
    """The plain model takes longer seeds than the others."""
    plus.check({"prompt": "p", "image": PHOTO, "seed": 999_999_999_999_999}, text=False)
    with pytest.raises(InvalidField, match="seed"):
        angle.check({"prompt": "p", "image_1": PHOTO, "seed": 2**31}, text=False)
