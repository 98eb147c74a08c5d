"""The engine against the reference over all that an edit and a checkpoint may be: each pair of values, or each whole
combination in the long run."""

import json
import math
import shutil
from functools import cache
from itertools import combinations, product

import pytest

from darkroom.engine.engine import Engine
from edits import an_edit, some_pictures
from parity.compare import assert_alike
from parity.oracle import Reference
from parity.ours import run_stages

PROMPTS = {
    "plain": "Make the sky red, by night",
    "long": " ".join(f"Then move house {number} to the left, and paint its door blue." for number in range(40)),
    "empty": "",
    "Chinese": "把天空变成红色，让房子下雪。",
}
AXES = {
    "pictures": (1, 2, 3),
    "guided": (True, False),
    "ratio": (None, (21, 9), (23, 37), (5, 4)),
    "prompt": tuple(PROMPTS),
    "model": ("2509", "2511"),
    "schedule": ("normal", "Lightning"),
}
MODELS = {"2509": {}, "2511": {"zero_cond_t": True}}
SCHEDULES = {
    "normal": {},
    "Lightning": {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None},
}
EVERY = [dict(zip(AXES, values, strict=True)) for values in product(*AXES.values())]


def pairs_in(case):
    return set(combinations(case.items(), 2))


def cover_pairs():
    """Few cases in which each two values of different axes meet: next is always the one with most pairs not met yet."""
    left = set().union(*map(pairs_in, EVERY))
    cases = []
    while left:
        cases.append(max(EVERY, key=lambda case: len(left & pairs_in(case))))
        left -= pairs_in(cases[-1])
    return cases


PAIRWISE = cover_pairs()


def name_of(case):
    return ", ".join(f"{axis} {value}" for axis, value in case.items())


@pytest.fixture(scope="module")
def both(tiny_checkpoint, tmp_path_factory):
    """The engine and the reference on a variant of the checkpoint, loaded once each."""

    @cache
    def load(model, schedule):
        folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("variant") / "checkpoint")
        for file, changes in (
            ("transformer/config.json", MODELS[model]),
            ("scheduler/scheduler_config.json", SCHEDULES[schedule]),
        ):
            config = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps({**config, **changes}))
        return Engine.load(folder, device="cpu", dtype="float32"), Reference(folder)

    return load


def compare(both, case):
    engine, reference = both(case["model"], case["schedule"])
    edit = an_edit(
        pictures=case["pictures"],
        prompt=PROMPTS[case["prompt"]],
        true_cfg_scale=4.0 if case["guided"] else 1.0,
        aspect_ratio=case["ratio"],
        steps=2,
    )
    pictures = some_pictures(case["pictures"])
    ours, theirs = run_stages(engine, edit, pictures), reference.edit(edit, pictures)
    assert (theirs.negative is not None) == case["guided"]
    assert_alike(ours, theirs)


def test_each_two_values_meet_in_a_case():
    """The cases that are run cover every pair of values of two axes, and are far fewer than all."""
    values = [(axis, value) for axis, several in AXES.items() for value in several]
    wanted = {(one, other) for one, other in combinations(values, 2) if one[0] != other[0]}
    assert set().union(*map(pairs_in, PAIRWISE)) == wanted
    assert len(PAIRWISE) < len(EVERY) / 15


def test_the_long_prompt_is_several_hundred_tokens(both):
    """Long for the real tokenizer too: 40 sentences."""
    engine, _ = both("2509", "normal")
    assert len(engine._models.text.tokenize(PROMPTS["long"], [])) - len(engine._models.text.tokenize("", [])) > 400
    assert len(PROMPTS["long"].split()) > 400


@pytest.mark.parametrize("case", PAIRWISE, ids=name_of)
def test_each_pair_of_values_agrees_with_the_reference(both, case):
    """Stage by stage within 1e-4, the picture within a level of 255."""
    compare(both, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in EVERY if case not in PAIRWISE], ids=name_of)
def test_each_other_combination_agrees_with_the_reference(both, case):
    """The rest of all combinations."""
    compare(both, case)
