"""What the jobs' scenes have in common: where things may stand, how they are drawn by lot, and what they are called."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace

from training.world.palette import GROUNDS, HAIRS, PAINTS, SKIES, WHITE
from training.world.scene import Floor, Kind, Light, Pattern, Scene, Skin, Thing

SOLIDS = (Kind.BALL, Kind.BOX, Kind.PILLAR, Kind.MUG, Kind.SOFA, Kind.CARD)
SIDES = {"left": -0.8, "right": 0.8}
DAY, SUNSET, NIGHT = WHITE, (1.0, 0.72, 0.5), (0.38, 0.42, 0.68)
_FLOORS = (Pattern.PLAIN, Pattern.PLAIN, Pattern.CHECKS, Pattern.STRIPES)
_FLOOR_WORDS = {Pattern.PLAIN: "plain", Pattern.CHECKS: "checkered", Pattern.STRIPES: "striped"}
_BULK = {Kind.SOFA: 0.72, Kind.MUG: 0.9, Kind.BOX: 0.95, Kind.PILLAR: 0.95}
_SKIN_PATTERNS = (Pattern.STRIPES, Pattern.BANDS, Pattern.CHECKS, Pattern.DOTS)
_HELD_OUT = 8
_MARKS = (-30.0, -15.0, 0.0, 15.0, 30.0)


def paint(rng: random.Random, *, but: tuple[str, ...] = ()) -> str:
    return rng.choice([name for name in PAINTS if name not in but])


def colour_of(thing: Thing) -> str:
    return next(name for name, colour in PAINTS.items() if colour == thing.skin.colour)


def floor(rng: random.Random) -> Floor:
    return Floor(colour=GROUNDS[rng.choice(list(GROUNDS))], pattern=rng.choice(_FLOORS))


def floor_words(of: Floor) -> str:
    colour = next(name for name, rgb in GROUNDS.items() if rgb == of.colour)
    return f"{_FLOOR_WORDS[of.pattern]} {colour} floor"


def thing(kind: Kind, colour: str, x: float, *, size: float = 1.0) -> Thing:
    """As prompts that add one mean it: nothing about it is left to chance."""
    return Thing(kind=kind, x=x, y=0.0, skin=Skin(colour=PAINTS[colour]), size=size * _BULK.get(kind, 1.0))


def strewn(rng: random.Random, of: Thing) -> Thing:
    """The thing a little aside, turned and grown by chance; a mug's handle and a sofa's seat stay in view."""
    yaw = rng.uniform(-30, 30)
    grown = of.size * rng.uniform(0.93, 1.07)
    return replace(of, x=of.x + rng.uniform(-0.12, 0.12), y=rng.uniform(-0.25, 0.25), yaw=yaw, size=grown)


def marked(rng: random.Random, of: Thing) -> Thing:
    """The thing in its place, turned to a mark: a view from another side hangs on how exactly it stands."""
    return replace(of, yaw=rng.choice(_MARKS))


def things(rng: random.Random, count: int, put: Callable[[random.Random, Thing], Thing] = strewn) -> tuple[Thing, ...]:
    """One thing in the middle, or two side by side, of different kinds and colours."""
    kinds, colours = rng.sample(SOLIDS, count), rng.sample(list(PAINTS), count)
    if count == 1:
        return (put(rng, thing(kinds[0], colours[0], 0.0, size=1.45)),)
    return tuple(put(rng, thing(k, c, x)) for k, c, x in zip(kinds, colours, SIDES.values(), strict=True))


def light(rng: random.Random) -> Light:
    return Light(azimuth=rng.choice((-45.0, 45.0)))


def setting(rng: random.Random, on: tuple[Thing, ...]) -> Scene:
    """The things on some floor, in daylight."""
    return Scene(things=on, floor=floor(rng), sky=SKIES[rng.choice(list(SKIES))], light=light(rng))


def person(shirt: str, hair: str, x: float, *, size: float = 1.15) -> Thing:
    return Thing(kind=Kind.PERSON, x=x, y=0.0, skin=Skin(colour=PAINTS[shirt]), hair=HAIRS[hair], yaw=0.0, size=size)


def swatch(rng: random.Random, *, held_out: bool) -> Skin:
    """A two-coloured skin. An eighth of all skins is held out: evaluation draws those, training only the others."""
    while True:
        colour, other = rng.sample([*PAINTS, "white"], 2)
        pattern, repeats = rng.choice(_SKIN_PATTERNS), rng.choice((1, 2))
        name = f"{colour} {other} {pattern.name} {repeats}"
        if (hashlib.sha256(name.encode()).digest()[0] % _HELD_OUT == 0) == held_out:
            second = PAINTS.get(other, WHITE)
            return Skin(colour=PAINTS.get(colour, WHITE), second=second, pattern=pattern, repeats=repeats)
