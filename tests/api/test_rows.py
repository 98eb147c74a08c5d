"""What a row of the history says was asked."""

from dataclasses import replace

from darkroom.api.rows import Status, asked
from darkroom.edit import LoraRef, PictureRef
from darkroom.job import State
from edits import an_edit


def test_pictures_and_loras_are_named_without_what_their_addresses_give_away() -> None:
    """By the parameters they came in; what follows the ? may be a key, and what was kept has no address at all."""
    edit = replace(
        an_edit(),
        pictures=(
            PictureRef(field="image_1", blob="inputs/2026112904/job/image_1"),
            PictureRef(field="image_2", url="https://photos.example.com/a/cat.png?token=secret#x"),
        ),
        loras=(
            LoraRef(field="lora", name="relight", digest="0" * 64, strength=0.75),
            LoraRef(
                field="lora_2_url",
                name="ink.safetensors",
                url="https://loras.example.com/ink.safetensors?token=secret",
                validator='"1"',
                strength=-1.0,
            ),
            LoraRef(field="go_fast", name="lightning_8_steps", digest="1" * 64, strength=1.0),
        ),
        lightning=True,
    )
    body = asked(edit)
    assert "secret" not in str(body)
    assert {name: body[name] for name in body if name.startswith(("image_1", "image_2", "lora", "go"))} == {
        "image_1": "inline",
        "image_2": "https://photos.example.com/a/cat.png",
        "lora": "relight",
        "lora_scale": 0.75,
        "lora_2_url": "https://loras.example.com/ink.safetensors",
        "lora_2_scale": -1.0,
        "go_fast": True,
    }


def test_each_state_has_its_status() -> None:
    """The SDK knows three."""
    assert {status: status.states for status in Status} == {
        Status.PENDING: (State.QUEUED, State.PROCESSING),
        Status.COMPLETED: (State.COMPLETED,),
        Status.FAILED: (State.FAILED,),
    }
