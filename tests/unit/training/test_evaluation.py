"""What an evaluation measures, and what it holds against what."""

from dataclasses import replace

import pytest
import torch

from darkroom.catalogue import read_catalogue
from training.evaluate import Extent
from training.evaluation import report
from training.evaluation.bars import ALL, PLUS, Bar, bars_of
from training.evaluation.figures import MEASURES, Way, judge, means
from training.evaluation.scenes import Asked, Scene, make_scene, read_picture
from training.evaluation.sheet import SHOWN, Shown, extremes
from training.evaluation.ways import PLUS_SLUG, requests_of
from training.world.jobs import BASE_JOBS, JOBS, PAIR, PRESETS

SIDE = 128
LINK = "http://127.0.0.1:9/second.safetensors"


def plain(level: int) -> torch.Tensor:
    return torch.full((3, SIDE, SIDE), level, dtype=torch.uint8)


def painted(level: int) -> torch.Tensor:
    """A square of that level on gray."""
    picture = plain(100)
    picture[:, 20:40, 20:40] = level
    return picture


@pytest.fixture
def scene() -> Scene:
    """Gray, of which a light square is asked, and might be a dark one."""
    light, dark = (Asked(prompt=str(level), pictures=(plain(100),), truth=painted(level)) for level in (200, 0))
    return Scene(job="relight", number=0, asked=light, rivals=(dark,))


def test_gains_are_over_the_input_where_the_truth_differs(scene):
    """An edit off by 10 where the input is off by 100 has gained 20 dB on the square (grown by two pixels, which both
    leave right), and nothing elsewhere counts there."""
    made = painted(190)
    found = judge(scene, {Way.FULL: made, Way.FAST: made}, painted(200))
    assert found.gain_changed_db == pytest.approx(20)
    elsewhere = made.clone()
    elsewhere[:, 60:, :] += 5
    worse = judge(scene, {Way.FULL: elsewhere, Way.FAST: made}, painted(200))
    assert worse.gain_changed_db == found.gain_changed_db
    assert worse.whole_db < found.whole_db
    assert worse.fast_db == pytest.approx(found.whole_db - worse.whole_db)
    assert (found.adapter_db, found.right_db, found.right_wins) == (None, None, None)


def test_what_was_asked_is_held_against_what_was_not(scene):
    """The edit without its LoRA, the edit by the wrong prompt, and the truth of what else might be asked."""
    ways = {Way.FULL: painted(200), Way.FAST: painted(200), Way.BARE: plain(100), Way.WRONG: painted(0)}
    right = judge(scene, ways, painted(200))
    assert right.adapter_db == pytest.approx(right.gain_changed_db)
    assert right.right_db > right.adapter_db
    assert (right.right_wins, right.nearest, right.nearer) == (1, 1, 1)
    wrong = judge(scene, {**ways, Way.FULL: painted(0), Way.WRONG: painted(200)}, painted(200))
    assert (wrong.right_wins, wrong.nearest, wrong.nearer) == (0, 0, 0)
    assert wrong.right_db == pytest.approx(-right.right_db)


def test_means_leave_out_what_a_scene_has_not(scene):
    """A scene without rivals does not count as one lost."""
    ways = {Way.FULL: painted(200), Way.FAST: painted(200), Way.WRONG: painted(0)}
    with_rival = judge(scene, ways, painted(200))
    alone = judge(replace(scene, rivals=()), {Way.FULL: plain(100), Way.FAST: plain(100)}, painted(200))
    found = means([with_rival, alone])
    assert found["right_db"] == with_rival.right_db
    assert found["nearer"] == 0.5
    assert found["adapter_db"] is None


@pytest.mark.parametrize(
    ("group", "measure", "least"),
    [
        *((group, "gain_changed_db", least) for group, least in ((PLUS, 12), ("multiple_angle", 10), (PAIR, 3))),
        *((group, "gain_changed_db", least) for group, least in (("product_photography", 15), ("texture_apply", 8))),
        *((group, "whole_db", 25) for group in (PLUS, "multiple_angle", "product_photography")),
        ("texture_apply", "whole_db", 23),
        *((group, "right_db", 3 if group == "texture_apply" else 5) for group in (PLUS, *PRESETS)),
        *((group, "adapter_db", 3) for group in PRESETS),
        *((group, measure, 0.95) for group in (PLUS, *PRESETS) for measure in ("nearer", "right_wins")),
        *((group, "gain_changed_db", 5) for group in PRESETS[3:]),
        *((group, "fast_db", -1) for group in (PLUS, *PRESETS)),
        ("multiple_angle", "nearest", 0.95),
        (ALL, "vae_db", 35),
    ],
)
def test_bars_are_where_they_were_put(group, measure, least):
    """Each is held by what reaches it, and not by less."""
    at, below = (
        {bar.measure: bar for bar in bars_of(group, dict.fromkeys(MEASURES, value))} for value in (least, least - 1e-6)
    )
    assert at[measure].least == least
    assert at[measure].held
    assert not below[measure].held


def test_a_bar_that_is_missed_is_said_to_be():
    """In the table, with its value; and it is counted."""
    bars = [Bar(group=PLUS, measure="nearer", least=0.95, value=value) for value in (0.95, 0.94)]
    said = {"bars": [{**vars_of(bar), "held": bar.held} for bar in bars], "groups": {}, "base_jobs": {}}
    text = report.write({**said, "scenes": 2, "edits": 4, "checkpoint": "0", "seed": 1, "date": "today"})
    assert "1 of 2 held" in text
    assert "| plus | nearer than the input | 95.0 % | 94.0 % | **not held** |" in text


def vars_of(bar: Bar) -> dict:
    return {name: getattr(bar, name) for name in ("group", "measure", "least", "value")}


@pytest.mark.parametrize("main", [200, 7, 1])
def test_the_bases_jobs_share_a_main_groups_scenes(main):
    """As evenly as can be, and all of them."""
    counts = [Extent(main=main).scenes(job) for job in BASE_JOBS]
    assert sum(counts) == main
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("job", JOBS)
def test_requests_are_what_the_models_take(scene, job):
    """Each goes to a model of the catalogue; those with a LoRA are asked without it too, of the base, with the same
    prompt, steps and seed."""
    requests = requests_of(replace(scene, job=job), second=LINK)
    for request in requests.values():
        card = read_catalogue()[request.slug]
        first = dict.fromkeys(card.pictures[:1], b"")
        card.check({"prompt": request.prompt, **first, **request.params}, text=False)
    assert (Way.BARE in requests) == (job not in BASE_JOBS)
    if bare := requests.get(Way.BARE):
        assert bare.slug == PLUS_SLUG
        assert requests[Way.FULL].params.items() >= bare.params.items()
    assert requests[Way.WRONG].prompt != requests[Way.FULL].prompt


def test_a_scene_is_the_same_from_the_disk(tmp_path):
    """What was kept is what was rendered; every rival asks something else of the same picture."""
    rendered = make_scene("texture_apply", 3, seed=1, kept=tmp_path, compiled=False)
    assert read_picture(tmp_path / "texture_apply" / "00003.png").shape[1] % SIDE == 0
    kept = make_scene("texture_apply", 3, seed=1, kept=tmp_path, compiled=False)
    for one, other in zip((rendered.asked, *rendered.rivals), (kept.asked, *kept.rivals), strict=True):
        assert one.prompt == other.prompt
        assert all(map(torch.equal, (*one.pictures, one.truth), (*other.pictures, other.truth)))
    for rival in rendered.rivals:
        assert torch.equal(rival.pictures[0], rendered.before)
        assert not torch.equal(rival.truth, rendered.asked.truth)


@pytest.mark.parametrize("count", [1, SHOWN + 1, 3 * SHOWN])
def test_the_sheet_shows_no_scene_twice(scene, count):
    """The worst come first, then the best, best first."""
    ways = {Way.FULL: plain(100), Way.FAST: plain(100)}
    outcome = judge(scene, ways, painted(200))
    shown = [
        Shown(scene=scene, made=ways, outcome=replace(outcome, number=n, gain_changed_db=float(n)))
        for n in range(count)
    ]
    numbers = [each.outcome.number for each in extremes(shown)]
    assert len(set(numbers)) == len(numbers) == min(count, 2 * SHOWN)
    worst, best = numbers[:SHOWN], numbers[SHOWN:]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert not best or (worst[0], best[0]) == (0, count - 1)
