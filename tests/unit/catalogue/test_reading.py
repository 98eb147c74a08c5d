"""Reading cards: nothing in a card is guessed at or passed over."""

import pytest

from darkroom.catalogue.reading import CARDS, read_catalogue
from darkroom.errors import BadCard

PLUS = (CARDS / "qwen-image-edit-plus.toml").read_text()
RELIGHT = (CARDS / "qwen-image-edit-plus-relight.toml").read_text()
FAMILY = (CARDS / "families" / "lora.toml").read_text()
FAST = '[fast]\nnum_inference_steps = 8\nguidance_scale = 4.0\nnegative_prompt = " "\n'
SEED = "[parameters.seed]\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "lora.toml").write_text(FAMILY)
    return tmp_path


def read(folder, text, name="card.toml"):
    (folder / name).write_text(text)
    return read_catalogue(folder)


def swapped(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_price_is_exact(folder):
    """A price in credits becomes whole micro-credits, without a detour through floats."""
    (card,) = read(folder, swapped(PLUS, "price = 0.04", "price = 1.000001")).values()
    assert card.price_micro == 1_000_001


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('slug = "qwen-image-edit-plus"', "", "slug: is missing"),
        ('slug = "qwen-image-edit-plus"', 'slug = "Qwen Edit"', "slug: must be lower-case words"),
        ("price = 0.04", "price = 0.04\ncolour = 1", "colour: is not known here"),
        ("price = 0.04", 'price = "0.04"', "price: must be a number, not '0.04'"),
        ("price = 0.04", "price = 0.0000001", "price: must be in credits"),
        ("price = 0.04", "price = -1", "price: must be in credits"),
        ("price = 0.04", "price = true", "price: must be a number, not True"),
        ("price = 0.04", 'price = 0.04\nfamily = "nobody"', "family: there is no families/nobody.toml"),
        ("price = 0.04", "price = 0.04\nprice = 0.05", "is not TOML"),
        ('title = "Qwen Image Edit Plus"', 'title = " "', "title: is blank"),
        (SEED, SEED + "minimun = 1\n", "parameters.seed.minimun: is not known here"),
        (SEED, SEED + 'enum = ["1"]\n', "parameters.seed.enum: is not known here"),
        (SEED, SEED + "required = 1\n", "parameters.seed.required: must be true or false, not 1"),
        ("default = 760941192", "default = -2", "parameters.seed.default: seed must be a whole number from -1"),
        ("default = 760941192", "default = true", "parameters.seed.default: seed must be a whole number"),
        ("default = 90", "default = 101", "parameters.quality.default: quality must be"),
        ("default = 90", "default = []", "parameters.quality.default: must be a plain value, not []"),
        ("default = 90", "", "parameters.quality.default: is missing"),
        ("minimum = 10\n", "minimum = 200\n", "parameters.quality.minimum: is above the maximum, 100"),
        ("minimum = 10\n", "minimum = 0\n", "parameters.quality: must be bounded within 1 and 100"),
        ("minimum = 10\n", "minimum = 10.5\n", "parameters.quality.minimum: must be a whole number, not 10.5"),
        ("minimum = 10\n", "", "parameters.quality.minimum: is missing"),
        ('default = "webp"', 'default = "gif"', "parameters.image_format.default: image_format must be one of"),
        ('["png", "jpeg", "webp"]', '["png", "jpeg", "webp", "gif"]', "parameters.image_format.enum: must have values"),
        ('["png", "jpeg", "webp"]', '["png", "png", "webp"]', "parameters.image_format.enum: has a value twice"),
        ('["png", "jpeg", "webp"]', '["png", 5, "webp"]', "parameters.image_format.enum: must be a list of strings"),
        ('"1:1", ', '"square", ', "parameters.aspect_ratio.enum: must have values"),
        ("[parameters.go_fast]", "[parameters.go_faster]", "parameters.go_faster.type: must be image"),
        ('type = "number"', 'type = "float"', "parameters.guidance_scale.type: must be one of string, integer, number"),
        ('type = "number"', 'type = "integer"', "parameters.guidance_scale.type: must be number"),
        ("num_inference_steps = 8", "num_inference_steps = 101", "fast.num_inference_steps: num_inference_steps must"),
        ("num_inference_steps = 8", "", "fast.num_inference_steps: is missing"),
        ("num_inference_steps = 8", "num_inference_steps = 8\neta = 0", "fast.eta: is not known here"),
        (FAST, "", "fast: must be there if the parameter go_fast is, and only then"),
        ("[parameters.prompt]", "[parameters.words]", "parameters.prompt: is missing"),
        (
            'required = true\ndescription = "The picture to edit; the prompt knows it as image 1."',
            'description = "The picture to edit."',
            "parameters.image: one picture at least must be needed",
        ),
        ("required = true\nmax_chars = 5000", "max_chars = 5000", "parameters.prompt.needed: must be true"),
    ],
)
def test_a_bad_card_is_named_with_its_key(folder, old, new, complaint):
    """Whatever is wrong with a card stops the start, with the file, the key and what is wrong."""
    with pytest.raises(BadCard) as caught:
        read(folder, swapped(PLUS, old, new))
    assert caught.value.message.startswith("card.toml")
    assert complaint in caught.value.message


def test_a_slug_has_one_card(folder):
    """Two cards with the same slug are an error."""
    read(folder, PLUS, "a.toml")
    with pytest.raises(BadCard, match=r"b\.toml: slug: 'qwen-image-edit-plus' is another card's already"):
        read(folder, PLUS, "b.toml")


def test_no_cards_at_all(folder):
    """A folder without cards is an error, not an empty catalogue."""
    with pytest.raises(BadCard, match="there is no card"):
        read_catalogue(folder)


class TestFamily:
    def test_a_card_says_only_what_differs(self, folder):
        """A family's parameters keep their order; what the card says of one goes over it, key by key."""
        (card,) = read(folder, RELIGHT + "\n[parameters.seed]\ndefault = 5\n").values()
        assert [*card.parameters][:3] == ["prompt", "aspect_ratio", "base64"]
        assert (card.parameters["seed"].default, card.parameters["seed"].maximum) == (5, 2147483647)
        assert card.parameters["lora"].enum == ("relight",)

    def test_what_the_family_leaves_open_must_be_said(self, folder):
        """A card that names a family and forgets its own part is an error like any other."""
        text = swapped(RELIGHT, 'default = "relight"\nenum = ["relight"]', 'default = "relight"')
        with pytest.raises(BadCard, match=r"card\.toml: parameters\.lora\.max_chars: is missing"):
            read(folder, text)

    def test_a_family_is_no_card(self, folder):
        """A family by itself is not offered."""
        assert [*read(folder, RELIGHT)] == ["qwen-image-edit-plus-relight"]
