import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.vae_config import VaeConfig
from darkroom.engine.vae_strips import make_strips, peak_bytes, plan_strips

PUBLISHED = VaeConfig.read(
    {
        "base_dim": 96,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        "z_dim": 16,
    }
)
CODERS = {"encoder": PUBLISHED.encoder, "decoder": PUBLISHED.decoder}
coders = st.sampled_from(list(CODERS.values()))
sides = st.integers(1, 80)


def plan(coder, rows, columns, memory_bytes):
    return plan_strips(coder, latent_rows=rows, latent_columns=columns, value_bytes=2, memory_bytes=memory_bytes)


@given(coder=coders, rows=sides, count=st.integers(1, 80))
def test_strips_make_up_the_picture(coder, rows, count):
    """Each row of the result is in one strip, in order, and no level is asked for rows that are not there."""
    strips = make_strips(coder, latent_rows=rows, count=min(count, rows))
    made = [row for strip in strips for row in strip[-1]]
    assert made == list(range(rows * coder.scales[-1]))
    for strip in strips:
        for needed, scale in zip(strip, coder.scales, strict=True):
            assert 0 <= needed.start < needed.stop <= rows * scale


def test_a_strip_takes_in_what_its_rows_depend_on():
    """Of the published model, worked out by hand: 13 rows of latents above and below; of a picture 61 rows above, and
    the one before since it is even, and 68 below."""
    (decoded,) = make_strips(PUBLISHED.decoder, latent_rows=128, count=128)[64:65]
    assert decoded == (range(51, 78), range(116, 142), range(246, 270), range(505, 527), range(512, 520))
    (encoded,) = make_strips(PUBLISHED.encoder, latent_rows=128, count=128)[64:65]
    assert encoded == (range(450, 588), range(228, 291), range(116, 143), range(60, 69), range(64, 65))


@pytest.mark.parametrize("coder", CODERS.values(), ids=CODERS)
def test_a_picture_stays_whole_where_it_fits(coder):
    """No limit, or just enough: one strip. A byte less: several, which keep within it."""
    whole = make_strips(coder, latent_rows=128, count=1)
    needed_bytes = peak_bytes(coder, whole, 128, 2)
    assert plan(coder, 128, 128, None) == plan(coder, 128, 128, needed_bytes) == whole
    cut = plan(coder, 128, 128, needed_bytes - 1)
    assert len(cut) > 1
    assert peak_bytes(coder, cut, 128, 2) < needed_bytes


@given(coder=coders, rows=sides, columns=sides, budgets=st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)))
def test_less_memory_never_means_fewer_strips(coder, rows, columns, budgets):
    """And what a plan takes is within the memory, unless no plan is."""
    less, more = (plan(coder, rows, columns, budget) for budget in sorted(budgets))
    assert len(less) >= len(more)
    for strips, budget in zip((less, more), sorted(budgets), strict=True):
        others = (make_strips(coder, latent_rows=rows, count=count) for count in range(1, rows + 1))
        least = min(peak_bytes(coder, other, columns, 2) for other in others)
        assert peak_bytes(coder, strips, columns, 2) <= max(budget, least)


@given(coder=coders, rows=sides, columns=sides)
def test_more_takes_more(coder, rows, columns):
    """The estimate grows with either side, with the batch and with the precision."""
    whole = make_strips(coder, latent_rows=rows, count=1)
    taller = make_strips(coder, latent_rows=rows + 1, count=1)
    taken = peak_bytes(coder, whole, columns, 2)
    assert taken < peak_bytes(coder, taller, columns, 2)
    assert taken < peak_bytes(coder, whole, columns + 1, 2)
    assert 2 * taken == peak_bytes(coder, whole, columns, 4)


def test_what_a_megapixel_takes():
    """At the published size in bfloat16, 0.63 GB either way; in strips, decoding gets by with a fifth of that."""
    for coder in CODERS.values():
        assert peak_bytes(coder, make_strips(coder, latent_rows=128, count=1), 128, 2) == pytest.approx(
            0.63e9, rel=0.01
        )
    assert peak_bytes(PUBLISHED.decoder, plan(PUBLISHED.decoder, 128, 128, 1), 128, 2) < 0.63e9 / 5
