"""The evaluation, from scenes to bars, through the HTTP API."""

import json

import pytest

from training.config import Config
from training.evaluate import Extent, digest_of, evaluate
from training.evaluation.bars import PLUS
from training.evaluation.figures import Way
from training.evaluation.scenes import make_scene, write_picture
from training.world.jobs import PAIR

JOBS = ("plus.recolour", "texture_apply", PAIR)


@pytest.fixture(scope="module")
def measured(nano, tmp_path_factory):
    """Two scenes of a job each; the results and their folder."""
    out = tmp_path_factory.mktemp("evaluation")
    results = evaluate(nano, out, seed=Config().seed, extent=Extent(main=2, sibling=2, jobs=JOBS), compiled=False)
    return results, out


def test_served_edits_do_what_was_asked(measured):
    """With a LoRA by name, with two (one by address), and with none: nearer to the truth, and because of the LoRA."""
    groups = measured[0]["groups"]
    assert groups[PLUS]["gain_changed_db"] > 3
    assert groups[PAIR]["gain_changed_db"] > 3
    assert groups["texture_apply"]["gain_changed_db"] > 1
    assert groups["texture_apply"]["adapter_db"] > 1
    assert groups["texture_apply"]["vae_db"] > groups["texture_apply"]["whole_db"]
    assert groups["texture_apply"]["right_wins"] > 0


def test_what_was_measured_is_written_down(measured):
    """Figures of every scene, the bars with what was reached, and every picture in the sheet."""
    results, out = measured
    assert json.loads((out / "figures.json").read_text()) == results
    assert len(results["outcomes"]) == results["scenes"] == 5
    assert results["edits"] == 3 + 2 * len(Way) + 2 * len(Way)
    for bar in results["bars"]:
        assert bar["held"] == (bar["value"] >= bar["least"])
        assert bar["value"] == results["groups"][bar["group"]][bar["measure"]]
    page = (out / "sheet.html").read_text()
    pictures = {"plus.recolour": 3 + 2, "texture_apply": 2 * (4 + 3), PAIR: 2 * (4 + 2)}
    assert page.count("<figure>") == sum(pictures.values())
    assert "| texture_apply | gain on the changed area, dB | 8.0 |" in (out / "figures.md").read_text()


def test_an_evaluation_goes_on_where_it_was_stopped(nano, tmp_path):
    """Edits that are there are not made again; and one that is the truth itself beats every bar but the LoRA's."""
    seed, job = Config().seed, "plus.recolour"
    edits = tmp_path / f"edits-{digest_of(nano)}-{seed}" / job
    scene = make_scene(job, 0, seed=seed, compiled=False)
    for way in (Way.FULL, Way.FAST):
        write_picture(scene.asked.truth, edits / way / "00000.png")
    write_picture(scene.rivals[0].truth, edits / Way.WRONG / "00000.png")
    results = evaluate(nano, tmp_path, seed=seed, extent=Extent(main=1, jobs=(job,)), compiled=False)
    assert not (tmp_path / "serve.log").exists()
    assert results["edits"] == len(list(Way)) - 1
    assert {bar["measure"]: bar["held"] for bar in results["bars"]} == dict.fromkeys(
        ("gain_changed_db", "whole_db", "nearer", "right_db", "right_wins", "fast_db", "vae_db"), True
    )
    assert results["groups"][PLUS]["whole_db"] == pytest.approx(68.13, abs=0.01)
    assert not edits.exists()
