from dataclasses import replace

import pytest
import torch

from training.world.palette import GROUNDS, PAINTS
from training.world.render import SIDE_PX, render
from training.world.scene import Camera, Floor, Kind, Light, Pattern, Scene, Skin, Thing, pack

CPU = torch.device("cpu")
RED = Skin(colour=PAINTS["red"])
FLAT = Light(ambient=1.0, diffuse=0.0, shadows=False)


def _shown(*scenes: Scene) -> torch.Tensor:
    return render(scenes, device=CPU, compiled=False).int()


def test_a_thing_stands_where_it_was_put():
    """A flatly lit ball in the middle shows its colour there, and nothing of it at the edges."""
    ball = Thing(kind=Kind.BALL, x=0, y=0, skin=RED)
    (picture,) = _shown(Scene(things=(ball,), blank=True, light=FLAT))
    red = torch.tensor([round(255 * level) for level in PAINTS["red"]])
    assert (picture[:, SIDE_PX // 2, SIDE_PX // 2] - red).abs().max() <= 1
    assert (picture[:, :, 0] == 255).all()


def test_turning_right_round_changes_nothing_and_left_is_left():
    """A camera gone a quarter round to its left sees on its right what was near it."""
    near = Scene(things=(Thing(kind=Kind.BALL, x=0, y=-0.9, skin=RED),), blank=True, light=FLAT)
    start, round_, left = _shown(*(replace(near, camera=Camera(azimuth=a)) for a in (0, 360, 90)))
    assert (start - round_).abs().max() <= 1
    coloured = (left[2] < 200).nonzero()[:, 1].float().mean()
    assert coloured > SIDE_PX * 0.6


def test_light_throws_shadows_away_from_itself():
    """Light from the left darkens the floor on the right of a thing."""
    box = Thing(kind=Kind.BOX, x=0, y=0, skin=RED)
    floor = Floor(colour=GROUNDS["white"])
    dark, flat = _shown(
        Scene(things=(box,), floor=floor, light=Light(azimuth=90)),
        Scene(things=(box,), floor=floor, light=Light(azimuth=90, shadows=False)),
    )
    shadow = (flat - dark).sum(0) > 30
    assert shadow.any()
    assert shadow.nonzero()[:, 1].float().mean() > SIDE_PX / 2


@pytest.mark.parametrize("pattern", [Pattern.STRIPES, Pattern.BANDS, Pattern.CHECKS, Pattern.DOTS])
def test_a_swatch_shows_both_colours(pattern: Pattern):
    """A swatch fills the frame with its pattern."""
    skin = Skin(colour=PAINTS["red"], second=PAINTS["blue"], pattern=pattern, repeats=2)
    (picture,) = _shown(Scene(swatch=skin))
    reds = (picture[0] > picture[2]).float().mean()
    assert 0.4 < reds < 0.8


def test_more_solids_than_fit_are_an_error():
    """Nothing is left out of a picture silently."""
    crowd = tuple(Thing(kind=Kind.SOFA, x=x, y=0, skin=RED) for x in range(3))
    with pytest.raises(ValueError, match="12 boxes"):
        pack(Scene(things=crowd))
