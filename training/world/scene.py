"""What stands in a picture: things on a floor, a light and a camera.

World axes: x to the right of the base camera, y away from it, z up; lengths in units of about one thing's width;
angles in degrees. Things are made of upright boxes, upright cylinders and balls.
"""

import math
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
import numpy.typing as npt

from training.world.palette import SKIES, SKIN, WHITE, Colour, darker

# Centre 3, half size 3, cos and sin of the yaw, the thing's origin 3, 1 / its half width, two colours 3 + 3, pattern,
# repeats.
WIDTH = 20
_FAR_BELOW = -1000.0


class Pattern(IntEnum):
    PLAIN = 0
    STRIPES = 1
    BANDS = 2
    CHECKS = 3
    DOTS = 4
    FACE = 5


class Kind(Enum):
    """What a thing is; the value is its name in prompts."""

    BALL = "ball"
    BOX = "box"
    PILLAR = "pillar"
    MUG = "mug"
    SOFA = "sofa"
    CARD = "card"
    PERSON = "person"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skin:
    """What a thing is covered with. repeats: of the pattern, over the thing's width."""

    colour: Colour
    second: Colour = WHITE
    pattern: Pattern = Pattern.PLAIN
    repeats: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """kind at (x, y) on the floor, `lift` above it, turned by yaw; size 1 is a unit wide. hair: a person's."""

    kind: Kind
    x: float
    y: float
    skin: Skin
    yaw: float = 20.0
    size: float = 1.0
    lift: float = 0.0
    hair: Colour = (0.1, 0.09, 0.09)
    seated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """pattern: PLAIN, STRIPES or CHECKS, in cells of a unit."""

    colour: Colour
    pattern: Pattern = Pattern.PLAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """From `azimuth` (0: behind the base camera, 90: from its left) and `height` above the floor."""

    azimuth: float = 35.0
    height: float = 50.0
    ambient: float = 0.48
    diffuse: float = 0.62
    tint: Colour = WHITE
    shadows: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """Looks at (x, y, z). azimuth: degrees it has gone round to its left; elevation 90 looks straight down."""

    azimuth: float = 0.0
    elevation: float = 13.0
    distance: float = 5.0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """blank: nothing but white around the things, as in a product shot. swatch: a skin filling the frame instead."""

    things: tuple[Thing, ...] = ()
    floor: Floor = field(default_factory=lambda: Floor(colour=WHITE))
    sky: Colour = SKIES["sky"]
    light: Light = field(default_factory=Light)
    camera: Camera = field(default_factory=Camera)
    blank: bool = False
    swatch: Skin | None = None


Row = list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Room for so many solids of each shape."""

    boxes: int
    cylinders: int
    balls: int

    @property
    def shapes(self) -> tuple[int, ...]:
        """Each slot's shape: 0 a box, 1 a cylinder, 2 a ball."""
        return (0,) * self.boxes + (1,) * self.cylinders + (2,) * self.balls


# A scene is cast with the first layout that holds it: most need few solids, and time goes with the slots.
LAYOUTS = (Layout(boxes=4, cylinders=2, balls=2), Layout(boxes=8, cylinders=3, balls=3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A scene as numbers. solids: slots × WIDTH, as its layout has them. setting: 32 (see `_setting`)."""

    layout: Layout
    solids: npt.NDArray[np.float32]
    setting: npt.NDArray[np.float32]


def pack(scene: Scene) -> Packed:
    """Raises ValueError if the scene has more solids of a shape than any layout."""
    rows: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for thing in scene.things:
        for shape, parts in zip(rows, _solids(thing), strict=True):
            shape.extend(parts)
    layout = _layout(rows)
    solids = np.zeros((len(layout.shapes), WIDTH), np.float32)
    solids[:, 2] = _FAR_BELOW
    solids[:, 3:7] = 1.0
    solids[:, 11] = 1.0
    start = 0
    for shape, room in zip(rows, (layout.boxes, layout.cylinders, layout.balls), strict=True):
        if shape:
            solids[start : start + len(shape)] = shape
        start += room
    return Packed(layout=layout, solids=solids, setting=_setting(scene))


def _layout(rows: tuple[list[Row], list[Row], list[Row]]) -> Layout:
    boxes, cylinders, balls = (len(shape) for shape in rows)
    for layout in LAYOUTS:
        if boxes <= layout.boxes and cylinders <= layout.cylinders and balls <= layout.balls:
            return layout
    raise ValueError(f"{boxes} boxes, {cylinders} cylinders and {balls} balls are more than a scene holds")


def _setting(scene: Scene) -> npt.NDArray[np.float32]:
    """Eye 3, right 3, up 3, forward 3, to the light 3, ambient, diffuse, tint 3, shadows, floor 3 + 3 and pattern,
    sky 3, blank."""
    camera, light = scene.camera, scene.light
    azimuth, elevation = math.radians(camera.azimuth), math.radians(camera.elevation)
    sin_a, cos_a, sin_e, cos_e = math.sin(azimuth), math.cos(azimuth), math.sin(elevation), math.cos(elevation)
    forward = (sin_a * cos_e, cos_a * cos_e, -sin_e)
    eye = tuple(at - camera.distance * ahead for at, ahead in zip((camera.x, camera.y, camera.z), forward, strict=True))
    right = (cos_a, -sin_a, 0.0)
    up = (sin_a * sin_e, cos_a * sin_e, cos_e)
    to, rise = math.radians(light.azimuth), math.radians(light.height)
    lamp = (-math.sin(to) * math.cos(rise), -math.cos(to) * math.cos(rise), math.sin(rise))
    lit = (light.ambient, light.diffuse, *light.tint, float(light.shadows))
    floor = (*scene.floor.colour, *darker(scene.floor.colour), float(scene.floor.pattern))
    return np.array(
        (*eye, *right, *up, *forward, *lamp, *lit, *floor, *scene.sky, float(scene.blank)), dtype=np.float32
    )


def _solids(thing: Thing) -> tuple[list[Row], list[Row], list[Row]]:
    """The thing's boxes, cylinders and balls."""
    build = _Build(thing)
    s = thing.size
    match thing.kind:
        case Kind.BALL:
            build.ball((0, 0, 0.55 * s), 0.55 * s)
        case Kind.BOX:
            build.box((0, 0, 0.48 * s), (0.48 * s, 0.48 * s, 0.48 * s))
        case Kind.PILLAR:
            build.cylinder((0, 0, 0.62 * s), 0.4 * s, 0.62 * s)
        case Kind.MUG:
            build.cylinder((0, 0, 0.45 * s), 0.42 * s, 0.45 * s)
            build.box((0.62 * s, 0, 0.68 * s), (0.22 * s, 0.08 * s, 0.08 * s))
            build.box((0.62 * s, 0, 0.24 * s), (0.22 * s, 0.08 * s, 0.08 * s))
            build.box((0.78 * s, 0, 0.46 * s), (0.08 * s, 0.08 * s, 0.3 * s))
        case Kind.SOFA:
            build.box((0, 0.28 * s, 0.45 * s), (0.85 * s, 0.14 * s, 0.45 * s))
            build.box((0, -0.06 * s, 0.2 * s), (0.6 * s, 0.36 * s, 0.2 * s))
            build.box((-0.72 * s, -0.06 * s, 0.3 * s), (0.13 * s, 0.36 * s, 0.3 * s))
            build.box((0.72 * s, -0.06 * s, 0.3 * s), (0.13 * s, 0.36 * s, 0.3 * s))
        case Kind.CARD:
            build.box((0, 0, 0.55 * s), (0.52 * s, 0.05 * s, 0.55 * s))
        case Kind.PERSON:
            tall = 0.28 * s if thing.seated else 0.46 * s
            build.cylinder((0, 0, tall), 0.3 * s, tall)
            build.head((0, 0, 2 * tall + 0.26 * s), 0.34 * s)
    return build.boxes, build.cylinders, build.balls


class _Build:
    """Collects a thing's solids, placed and turned with it."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.cos, self.sin = math.cos(math.radians(thing.yaw)), math.sin(math.radians(thing.yaw))
        self.boxes: list[Row] = []
        self.cylinders: list[Row] = []
        self.balls: list[Row] = []

    def box(self, at: tuple[float, float, float], half: tuple[float, float, float]) -> None:
        self.boxes.append(self._row(at, half, self.thing.skin))

    def cylinder(self, at: tuple[float, float, float], radius: float, half_height: float) -> None:
        self.cylinders.append(self._row(at, (radius, radius, half_height), self.thing.skin))

    def ball(self, at: tuple[float, float, float], radius: float) -> None:
        self.balls.append(self._row(at, (radius, radius, radius), self.thing.skin))

    def head(self, at: tuple[float, float, float], radius: float) -> None:
        face = Skin(colour=SKIN, second=self.thing.hair, pattern=Pattern.FACE)
        self.balls.append(self._row(at, (radius, radius, radius), face, origin_z=at[2], half_width=radius))

    def _row(
        self,
        at: tuple[float, float, float],
        half: tuple[float, float, float],
        skin: Skin,
        *,
        origin_z: float | None = None,
        half_width: float | None = None,
    ) -> Row:
        thing = self.thing
        x = thing.x + self.cos * at[0] - self.sin * at[1]
        y = thing.y + self.sin * at[0] + self.cos * at[1]
        middle = 0.5 * thing.size if origin_z is None else origin_z
        frame = (thing.x, thing.y, middle + thing.lift, 1 / (half_width or 0.55 * thing.size))
        covered = (*skin.colour, *skin.second, float(skin.pattern), float(skin.repeats))
        return [x, y, at[2] + thing.lift, *half, self.cos, self.sin, *frame, *covered]
