import pytest
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from darkroom.engine.sizes import fit, fit_vision

AREA = 1024 * 1024


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ((1, 1), (1024, 1024)),
        ((2, 3), (832, 1248)),
        ((3, 2), (1248, 832)),
        ((3, 4), (896, 1184)),
        ((4, 3), (1184, 896)),
        ((4, 5), (928, 1152)),
        ((5, 4), (1152, 928)),
        ((9, 16), (768, 1376)),
        ((16, 9), (1376, 768)),
        ((21, 9), (1568, 672)),
    ],
)
def test_each_ratio_has_its_size(ratio, size):
    """The published model's result sizes, width by height."""
    assert fit(AREA, ratio[0] / ratio[1], multiple_px=32) == size


@given(area=st.integers(1024, 2**21), width=st.integers(1, 10_000), height=st.integers(1, 10_000))
def test_sizes_are_the_reference_pipelines(area, width, height):
    """Any area and ratio gives the reference pipeline's own size."""
    assert fit(area, width / height, multiple_px=32) == calculate_dimensions(area, width / height)


@pytest.mark.parametrize(
    ("ratio", "size"),
    [((1, 1), (128, 128)), ((4, 3), (144, 112)), ((3, 2), (144, 96)), ((9, 16), (80, 144)), ((21, 9), (144, 64))],
)
def test_no_side_is_longer_than_may_be(ratio, size):
    """The area gives way to it, and the ratio does not."""
    assert fit(128 * 128, ratio[0] / ratio[1], multiple_px=16, max_px=144) == size


@given(
    width=st.integers(1, 80).map(lambda side: 32 * side),
    height=st.integers(1, 80).map(lambda side: 32 * side),
    max_px=st.integers(28 * 28 * 16, 28 * 28 * 16384),
)
def test_vision_sizes_are_the_reference_processors(width, height, max_px):
    """The text encoder's rounding is its image processor's own."""
    expected = smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=max_px)
    assert fit_vision(width, height, min_px=56 * 56, max_px=max_px) == expected[::-1]
