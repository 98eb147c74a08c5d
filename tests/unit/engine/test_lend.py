"""Weights that lie in host memory and come for a call."""

import dataclasses

import pytest
import torch
from torch import nn

from darkroom.checkpoint.layout import read_layout
from darkroom.engine.engine import Engine
from darkroom.engine.lend import lend
from darkroom.engine.models import load_models
from darkroom.memory.needs import Needs, Part
from darkroom.memory.plan import Device, Place, make_plan
from edits import an_edit, some_pictures

CPU = torch.device("cpu")


class Bringer:
    """Copies, as bringing to a device does, and knows which copies are alive."""

    def __init__(self) -> None:
        self.brought = 0

    def __call__(self, value):
        self.brought += value.nbytes
        return value.clone()


def test_a_piece_is_brought_for_its_call_and_let_go_after():
    """What is computed is the same; between calls, parameters are those at home, and not copies of them."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).requires_grad_(requires_grad=False)
    x, homes = torch.randn(3, 8), [parameter.data_ptr() for parameter in model.parameters()]
    expected, bring, seen = model(x), Bringer(), []
    lend([model[0], model[2]], bring)
    model[0].register_forward_hook(lambda layer, *_: seen.append(layer.weight.data_ptr()))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert bring.brought == sum(parameter.nbytes for parameter in model.parameters())
    assert [parameter.data_ptr() for parameter in model.parameters()] == homes


def test_a_piece_whose_call_fails_is_let_go_too():
    """An error of one edit leaves nothing on the device for the next."""
    layer = nn.Linear(8, 8).requires_grad_(requires_grad=False)
    home = layer.weight.data_ptr()
    lend([layer], Bringer())
    with pytest.raises(RuntimeError):
        layer(torch.randn(3, 7))
    assert layer.weight.data_ptr() == home


def test_an_edit_with_text_encoder_and_modulation_on_the_host_is_the_same(tiny_checkpoint, monkeypatch):
    """Bit for bit; and every weight that is planned for the host is brought from there, save for the embedding."""
    layout = read_layout(tiny_checkpoint)
    configs = {part.name: part.config for part in (layout.transformer, layout.text_encoder, layout.vae)}
    needs = Needs.read(configs, layout.working_sizes)
    whole = make_plan(
        needs, Device(name="cpu", kind="cpu", memory_bytes=10**12), dtype="float32", tier="exact", cache_bytes=0
    )
    away = (Part.TEXT_ENCODER, Part.MODULATION)
    parts = [dataclasses.replace(each, place=Place.HOST) if each.part in away else each for each in whole.parts]
    bring = Bringer()
    monkeypatch.setattr("darkroom.engine.models.lend_from_host", lambda pieces, _device: lend(pieces, bring))
    monkeypatch.setattr("darkroom.engine.text.lend_from_host", lambda pieces, _device: lend(pieces, bring))
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
    pixels = engine.edit(an_edit(), some_pictures(1), lambda _: None).image.tobytes()
    assert bring.brought == 0
    engine._models = load_models(
        layout, dataclasses.replace(whole, parts=tuple(parts)), device=CPU, dtype=torch.float32
    )
    assert engine.edit(an_edit(), some_pictures(1), lambda _: None).image.tobytes() == pixels
    text = engine._models.text._model
    vision = sum(parameter.nbytes for parameter in text.visual.parameters())
    language = sum(parameter.nbytes for parameter in text.language_model.parameters())
    embedding = text.language_model.embed_tokens.weight.nbytes
    modulation = 4 * needs.parameters[Part.MODULATION]
    # One look at the pictures, two prompts, one table.
    assert bring.brought == vision + 2 * (language - embedding) + modulation
