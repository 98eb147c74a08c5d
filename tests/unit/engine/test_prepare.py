from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.engine.prepare import VisionConfig, prepare, see
from darkroom.errors import EngineFailed, PictureInvalid
from edits import a_picture, an_edit

SMALL = WorkingSizes(output_area_px=64**2, vae_area_px=64**2, condition_area_px=64**2)
EYES = VisionConfig()


@pytest.mark.parametrize("size", [(160, 160), (96, 288), (448, 64)])
def test_the_text_encoder_sees_what_its_processor_would_show(size):
    """Patches and grid are the reference processor's."""
    patches, grid = see(a_picture(*size), EYES)
    shown = Qwen2VLImageProcessorPil()(a_picture(*size), return_tensors="np")
    assert shown["image_grid_thw"].tolist() == [[1, *grid]]
    np.testing.assert_allclose(patches, shown["pixel_values"], rtol=1e-5, atol=1e-5)


def test_each_picture_keeps_its_own_ratio():
    """References follow their pictures, the result follows the first."""
    prepared = prepare(an_edit(pictures=2), [a_picture(200, 100), a_picture(30, 60)], SMALL, EYES)
    assert [tuple(reference.pixels.shape) for reference in prepared.references] == [(1, 3, 32, 96), (1, 3, 96, 32)]
    assert (prepared.width_px, prepared.height_px) == (96, 32)
    assert all(float(reference.pixels.abs().max()) <= 1 for reference in prepared.references)


def test_the_ratio_asked_for_is_the_results():
    """An aspect ratio changes the result's size alone."""
    prepared = prepare(an_edit(aspect_ratio=(1, 2)), [a_picture(200, 100)], SMALL, EYES)
    assert (prepared.width_px, prepared.height_px) == (32, 96)
    assert tuple(prepared.references[0].pixels.shape) == (1, 3, 32, 96)


def test_pictures_are_resized_beside_one_another(monkeypatch):
    """Both sizes of both, where half of the cores do; what comes of it are the bits of one after the other."""
    pictures = [a_picture(200, 100), a_picture(90, 120)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = prepare(an_edit(pictures=2), pictures, SMALL, EYES)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    all_at_once = Barrier(4, timeout=10)

    class Met(type(pictures[0])):
        def resize(self, *size):
            all_at_once.wait()
            return super().resize(*size)

    for picture in pictures:
        picture.__class__ = Met
    made = prepare(an_edit(pictures=2), pictures, SMALL, EYES)
    assert made.seen.digest == expected.seen.digest
    assert [each.digest for each in made.references] == [each.digest for each in expected.references]


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 20_000), (20_000, 1)])
def test_a_sliver_is_refused_by_its_field(size):
    """A picture that would round to nothing is named, with the remedy."""
    with pytest.raises(PictureInvalid, match=r"image_2: .*crop") as caught:
        prepare(an_edit(pictures=2), [a_picture(50, 50), a_picture(*size)], SMALL, EYES)
    assert caught.value.field == "image_2"


def test_a_sliver_that_the_text_encoder_can_t_see_is_refused():
    """Its limit of 200 to 1 is met at the published sizes before any side rounds to nothing."""
    with pytest.raises(PictureInvalid):
        prepare(an_edit(), [a_picture(570, 1)], WorkingSizes(), EYES)


def test_a_ratio_asked_for_that_leaves_no_side_is_refused():
    """The fault is the parameter's, not the picture's."""
    with pytest.raises(EngineFailed) as caught:
        prepare(an_edit(aspect_ratio=(1, 100)), [a_picture(50, 50)], SMALL, EYES)
    assert caught.value.field == "aspect_ratio"


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
@example(width=1, height=1)
def test_any_picture_is_taken_or_refused(width, height):
    """Sizes and ratios of every kind either give whole tokens or the one error."""
    try:
        prepared = prepare(an_edit(), [a_picture(width, height)], SMALL, EYES)
    except PictureInvalid:
        assert max(width, height) / min(width, height) > 8
        return
    (reference,), (grid,) = prepared.references, prepared.seen.grids
    assert all(side % 32 == 0 for side in (*reference.pixels.shape[2:], prepared.width_px, prepared.height_px))
    assert prepared.seen.patches.shape == (grid[0] * grid[1], 1176)
    assert all(side % 2 == 0 for side in grid)


def test_the_processor_file_is_read_in_either_form():
    """Older files bound the area by min_pixels and max_pixels, newer ones in size."""
    older = VisionConfig.read({"min_pixels": 3136, "max_pixels": 12845056, "image_mean": [0.5, 0.5, 0.5]})
    newer = VisionConfig.read({"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "image_mean": [0.5] * 3})
    assert older == newer
    assert older.image_mean == (0.5, 0.5, 0.5)
