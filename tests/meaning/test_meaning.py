"""The right prompt and LoRA give the right picture, on the shipped checkpoint; and these tests would notice if not."""

import pytest
import torch

from darkroom.catalogue import read_catalogue
from darkroom.engine import denoise, engine, rope
from darkroom.engine.text import TextEncoder
from training.evaluation.ways import slug_of
from training.world.jobs import JOBS, PAIR, PRESETS

GUIDED = ("plus.recolour", "plus.add")
GUIDANCE = 2.0
GUIDED_SHARE = 1 / 2
"""Of what is measured without guidance: this checkpoint was trained to need none, and overshoots."""


@pytest.mark.parametrize("job", JOBS)
def test_an_edit_does_what_was_asked(editor, scenes, job):
    """The picture comes nearer to the truth, and nearer than where something else was asked of the same scene."""
    verdict = editor.judge(scenes(job))
    assert verdict.holds(job), verdict


def test_every_model_has_a_job():
    """All slugs of the catalogue are judged."""
    assert {slug_of(job) for job in JOBS} == read_catalogue().keys()


@pytest.mark.parametrize("job", GUIDED)
def test_a_guided_edit_does_what_was_asked(editor, scenes, job):
    """So it does with guidance."""
    verdict = editor.judge(scenes(job), guidance=GUIDANCE)
    assert verdict.holds(job, GUIDED_SHARE), verdict


@pytest.mark.parametrize("job", [*PRESETS, PAIR])
def test_it_is_noticed_when_loras_are_not_applied(editor, scenes, job, monkeypatch):
    """Each preset needs its LoRA."""
    monkeypatch.setattr(engine, "strengths_of", lambda _: ())
    assert not editor.judge(scenes(job)).holds(job)


@pytest.mark.parametrize("job", ["multiple_angle", "texture_apply", "product_photography", "relight"])
def test_it_is_noticed_when_a_loras_sign_is_flipped(editor, scenes, job, monkeypatch):
    """What is subtracted does not do what was to be added."""
    true = engine.strengths_of
    flipped = lambda loras: tuple((digest, -strength) for digest, strength in true(loras))  # noqa: E731
    monkeypatch.setattr(engine, "strengths_of", flipped)
    assert not editor.judge(scenes(job)).holds(job)


@pytest.mark.parametrize("job", ["plus.recolour", "plus.floor", "multiple_angle", "relight", "group_photo"])
def test_it_is_noticed_when_the_prompt_is_ignored(editor, scenes, job, monkeypatch):
    """Every prompt reads as an empty one."""
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, _, features, grids: encode(self, " ", features, grids))
    assert not editor.judge(scenes(job)).holds(job)


@pytest.mark.parametrize("job", ["texture_apply", "plus.seat", "group_photo"])
def test_it_is_noticed_when_pictures_are_swapped(editor, scenes, job, monkeypatch):
    """The last picture is taken for the first, and the first for the last."""
    true = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda edit, pictures, *rest: true(edit, pictures[::-1], *rest))
    assert not editor.judge(scenes(job)).holds(job)


@pytest.mark.parametrize("job", GUIDED)
def test_it_is_noticed_when_guidance_is_inverted(editor, scenes, job, monkeypatch):
    """Guidance leads from the prompt to the negative one."""
    true = denoise.guide
    monkeypatch.setattr(denoise, "guide", lambda positive, negative, scale: true(negative, positive, scale))
    assert not editor.judge(scenes(job), guidance=GUIDANCE).holds(job, GUIDED_SHARE)


@pytest.mark.parametrize("job", ["plus.recolour", "plus.floor", "multiple_angle", "texture_apply", "blend_it"])
def test_it_is_noticed_when_the_references_positions_are_shifted(editor, scenes, job, monkeypatch):
    """Pictures to edit lie a token further down and to the right than the result."""
    true = rope._grid_positions
    shift = torch.tensor([0, 1, 1])
    monkeypatch.setattr(rope, "_grid_positions", lambda frame, *grid: true(frame, *grid) + shift * (frame > 0))
    assert not editor.judge(scenes(job)).holds(job)
