import random
from dataclasses import asdict

import pytest
import torch

from training.world import stage
from training.world.jobs import BASE_JOBS, JOBS, PAIR, PRESETS, Split, adapters, draft
from training.world.scene import Scene

CPU = torch.device("cpu")


@pytest.mark.parametrize("job", JOBS)
def test_a_scene_is_fixed_by_split_seed_and_number(job: str):
    """The same four give the same samples, each of them another's; and every job asks something of its pictures."""
    first, again = (draft(job, Split.TRAIN, 1, 5) for _ in range(2))
    assert [asdict(sample) for sample in first.samples] == [asdict(sample) for sample in again.samples]
    others = [draft(job, Split.EVALUATE, 1, 5), draft(job, Split.TRAIN, 2, 5), draft(job, Split.TRAIN, 1, 6)]
    drawn = {made.rng.random() for made in (first, *others)}
    assert len(drawn) == 4
    assert all(sample.job == job and sample.prompt and 1 <= len(sample.pictures) <= 3 for sample in first.samples)


def test_developing_a_scene_twice_gives_the_same_pictures():
    """Pictures depend on nothing but the scene."""
    once, twice = (draft("plus.light", Split.TRAIN, 1, 0).develop(CPU, compiled=False) for _ in range(2))
    assert torch.equal(once, twice)


def test_held_out_swatches_are_never_trained_on():
    """The two splits draw from swatches without a common one, and both have plenty."""
    rng = random.Random(0)
    trained = {stage.swatch(rng, held_out=False) for _ in range(800)}
    held_out = {stage.swatch(rng, held_out=True) for _ in range(400)}
    assert not trained & held_out
    assert len(trained) > 5 * len(held_out) > 50


def test_the_base_has_no_adapter_and_each_preset_has_its_own():
    """So the base model never sees a preset's job."""
    assert {adapters(job) for job in BASE_JOBS} == {()}
    assert [adapters(preset) for preset in PRESETS] == [(preset,) for preset in PRESETS]
    assert len(adapters(PAIR)) == 2


def test_no_prompt_is_both_the_bases_and_a_presets():
    """What the base is asked in words, no adapter is."""
    prompts = {job: {s.prompt for n in range(20) for s in draft(job, Split.TRAIN, 1, n).samples} for job in JOBS}
    base = set().union(*(prompts[job] for job in BASE_JOBS))
    assert not base & set().union(*(prompts[job] for job in PRESETS))


@pytest.mark.parametrize("job", ["multiple_angle", "pair"])
def test_what_the_camera_goes_round_stands_on_marks(job: str):
    """In its place and turned by fifteens, in all pictures of a scene alike."""
    for number in range(20):
        made = draft(job, Split.TRAIN, 1, number)
        standing = {
            tuple((thing.kind, thing.x, thing.y, thing.yaw) for thing in scene.things)
            for scene in made._scenes
            if isinstance(scene, Scene)
        }
        (things,) = standing
        assert {(x, y) for _, x, y, _ in things} in ({(0.0, 0.0)}, {(-0.8, 0.0), (0.8, 0.0)})
        assert all(yaw % 15 == 0 and abs(yaw) <= 30 for *_, yaw in things)
