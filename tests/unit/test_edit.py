import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.edit import Edit, ImageFormat, LoraRef, Output, PictureRef
from edits import an_edit

NAMES = st.text(min_size=1, max_size=9)
PICTURES = st.builds(PictureRef, field=NAMES, blob=NAMES) | st.builds(PictureRef, field=NAMES, url=NAMES)
STRENGTHS = st.floats(-4, 4)
LORAS = st.builds(LoraRef, field=NAMES, name=NAMES, strength=STRENGTHS, digest=NAMES) | st.builds(
    LoraRef, field=NAMES, name=NAMES, strength=STRENGTHS, url=NAMES, validator=NAMES
)
EDITS = st.builds(
    Edit,
    prompt=st.text(),
    negative_prompt=st.none() | st.text(),
    pictures=st.lists(PICTURES, max_size=3).map(tuple),
    aspect_ratio=st.none() | st.tuples(st.integers(1, 21), st.integers(1, 21)),
    seed=st.integers(0, 2**63 - 1),
    num_inference_steps=st.integers(1, 100),
    true_cfg_scale=st.floats(1, 20),
    output=st.builds(Output, format=st.sampled_from(ImageFormat), quality=st.integers(1, 100), base64=st.booleans()),
    loras=st.lists(LORAS, max_size=3).map(tuple),
)


@given(EDITS)
def test_a_record_is_the_edit(edit: Edit) -> None:
    """An edit survives its record, through JSON text too: nothing is lost, rounded or of another type."""
    kept = Edit.from_record(json.loads(json.dumps(edit.to_record())))
    assert kept == edit
    assert type(kept.output.format) is ImageFormat
    assert type(kept.pictures) is tuple
    assert hash(kept) == hash(edit)


@pytest.mark.parametrize(
    "change", [{"sede": 1}, {"output": {"format": "bmp", "quality": 1}}, {"pictures": [{"field": "image_1"}]}]
)
def test_a_record_is_read_strictly(change: dict[str, object]) -> None:
    """A record with an unknown key, format or an empty picture is refused, never read as something near."""
    edit = Edit(
        prompt="",
        negative_prompt=None,
        pictures=(),
        aspect_ratio=None,
        seed=1,
        num_inference_steps=1,
        true_cfg_scale=1,
        output=Output(format=ImageFormat.PNG, quality=95),
    )
    with pytest.raises((TypeError, ValueError)):
        Edit.from_record(edit.to_record() | change)


def test_a_record_from_before_loras() -> None:
    """A record without LoRAs, as the ledger may still have them, is an edit without any."""
    edit = an_edit()
    record = edit.to_record()
    del record["loras"]
    assert Edit.from_record(record) == edit


@pytest.mark.parametrize("known", [{}, {"url": "https://files.example/a"}, {"validator": "1"}])
def test_a_lora_is_held_to_one_file(known: dict[str, str]) -> None:
    """A LoRA has the digest of its file, or an address with a version."""
    with pytest.raises(ValueError, match="lora: a LoRA has a digest, or a url with a validator"):
        LoraRef(field="lora", name="x", strength=1.0, **known)


@pytest.mark.parametrize("places", [{}, {"blob": "a", "url": "b"}])
def test_a_picture_is_in_one_place(places: dict[str, str]) -> None:
    """A picture is a blob or an address, never both or neither."""
    with pytest.raises(ValueError, match="image_1: a picture has either a blob or a url"):
        PictureRef(field="image_1", **places)


@given(EDITS)
def test_guidance_and_work(edit: Edit) -> None:
    """Guidance takes a scale above 1 and a negative prompt, an empty one counts; it doubles the work."""
    assert edit.guided == (edit.true_cfg_scale > 1 and edit.negative_prompt is not None)
    guided = dataclasses.replace(edit, true_cfg_scale=4.0, negative_prompt="")
    assert guided.guided
    plain = dataclasses.replace(guided, true_cfg_scale=1.0)
    assert not plain.guided
    assert guided.work == 2 * plain.work > 0
    assert dataclasses.replace(plain, num_inference_steps=2 * plain.num_inference_steps).work == 2 * plain.work


def test_content_types() -> None:
    """Every format has the content type that clients know it by."""
    assert [kind.content_type for kind in ImageFormat] == ["image/jpeg", "image/png", "image/webp"]


def lora(**changes: Any) -> LoraRef:
    return LoraRef(**{"field": "lora", "name": "n", "strength": 1.0, "digest": "a", **changes})


def test_a_lora_set_has_one_name() -> None:
    """It is the files and their strengths, whatever their order, their fields, or how often one is given."""
    set_of = {
        name: dataclasses.replace(an_edit(), loras=loras).lora_set
        for name, loras in {
            "two": (lora(), lora(digest="b", strength=0.5)),
            "turned": (lora(field="x", digest="b", strength=0.5), lora(name="y", url="https://h/y")),
            "with none": (lora(), lora(digest="c", strength=0.0), lora(digest="b", strength=0.5)),
            "split": (lora(strength=0.3), lora(strength=0.6), lora(strength=0.1), lora(digest="b", strength=0.5)),
            "one": (lora(),),
            "weaker": (lora(), lora(digest="b", strength=0.25)),
            "unread": (lora(digest=None, url="https://h/a", validator="1"),),
            "changed": (lora(digest=None, url="https://h/a", validator="2"),),
            "elsewhere": (lora(digest=None, url="https://h/b", validator="1"),),
            "without": (),
            "undone": (lora(), lora(strength=-1.0)),
        }.items()
    }
    assert set_of["two"] == set_of["turned"] == set_of["with none"] == set_of["split"]
    assert set_of["without"] == set_of["undone"] == ""
    assert len(set(set_of.values())) == 7
