import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.schedule import ScheduleConfig, make_schedule
from darkroom.errors import BadCheckpoint

FILE = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.36.0.dev0",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
    "use_karras_sigmas": False,
}
PUBLISHED = ScheduleConfig.read(FILE)
LIGHTNING = ScheduleConfig.read({**FILE, "base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None})


@pytest.mark.parametrize(
    ("steps", "sigmas"), [(8, (1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3)), (4, (1, 0.9, 0.75, 0.5))]
)
def test_lightning_schedules(steps, sigmas):
    """With both shifts at ln 3 and no terminal, the few-step adapters' own sigmas come out at any size."""
    for tokens in (256, 4096):
        made = make_schedule(LIGHTNING, steps=steps, image_tokens=tokens)
        assert made.sigmas == pytest.approx((*sigmas, 0), abs=5e-5)


def test_any_checkpoints_schedule_becomes_lightnings():
    assert PUBLISHED.for_lightning() == LIGHTNING


@given(steps=st.integers(2, 100), tokens=st.integers(1, 16384))
def test_noise_runs_from_all_to_the_terminal_to_none(steps, tokens):
    """Sigmas fall strictly from 1 to `shift_terminal`, then to 0; timesteps are the same in thousandths."""
    made = make_schedule(PUBLISHED, steps=steps, image_tokens=tokens)
    assert made.steps == steps
    assert made.sigmas[0] == 1
    assert made.sigmas[-2:] == pytest.approx((0.02, 0), abs=1e-6)
    assert all(before > after for before, after in zip(made.sigmas, made.sigmas[1:], strict=False))
    assert made.timesteps == pytest.approx([1000 * sigma for sigma in made.sigmas[:-1]])


def test_larger_pictures_keep_noise_longer():
    """The shift grows with the result's tokens."""
    small = make_schedule(PUBLISHED, steps=8, image_tokens=256)
    large = make_schedule(PUBLISHED, steps=8, image_tokens=4096)
    assert all(a < b for a, b in zip(small.sigmas[1:-2], large.sigmas[1:-2], strict=True))
    assert PUBLISHED.mu(256) == pytest.approx(0.5)
    assert PUBLISHED.mu(8192) == pytest.approx(0.9)


def test_a_single_step_goes_all_the_way():
    """One step is from noise alone to the picture, and nothing is divided by zero."""
    assert make_schedule(PUBLISHED, steps=1, image_tokens=4096).sigmas == (1, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"stochastic_sampling": True}, "stochastic_sampling"),
        ({"time_shift_type": "cubic"}, "cubic"),
    ],
)
def test_what_is_not_run_is_refused_by_name(change, named):
    """A scheduler file that asks for another sampler is an error, not another picture."""
    with pytest.raises(BadCheckpoint, match=named):
        ScheduleConfig.read({**FILE, **change})
