"""Renders samples/mug.jpg, the photo that the demo edits: a mug and an orange on a table, as a path tracer sees them.

Same seed, same picture. Arrays are float32; vectors stand in the last axis. The table is y = 0, the camera looks along
-z, and a unit is about a decimetre.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PATH = Path(__file__).parent.parent / "samples" / "mug.jpg"

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.int8]

NOTHING, TABLE, WALL, MUG, COFFEE, ORANGE = range(6)
BOUNCES = 5
FAR = np.float32(1e9)
NEAR, FARTHEST = 1e-3, 40

WALL_Z = -1.9
MUG_AT = np.array([-0.42, 0, 0.05], np.float32)
MUG_TURN = 0.5
MUG_RADIUS, MUG_HEIGHT, MUG_THICK = 0.43, 0.98, 0.045
MUG_BOUND = (MUG_AT + np.array([0.1, 0.5, 0], np.float32), 0.88)
COFFEE_Y = 0.82
ORANGE_AT, ORANGE_RADIUS = np.array([0.62, 0.36, 0.3], np.float32), 0.36

LIGHT_AT = np.array([-3.2, 3.6, 2.2], np.float32)
LIGHT_U, LIGHT_V = np.array([0.48, 0, 0.7], np.float32), np.array([0.5, 0.85, -0.343], np.float32)
LIGHT = np.array([40, 36, 30], np.float32)

CAMERA, TARGET = np.array([0.35, 2.15, 4.0], np.float32), np.array([0.06, 0.47, 0], np.float32)
HALF_WIDTH, LENS = 0.36, 0.022


def color(text: str) -> Array:
    """Linear light of an sRGB hex colour."""
    srgb = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def dot(a: Array, b: Array) -> Array:
    total: Array = np.einsum("...i,...i->...", a, b)
    return total


def unit(a: Array) -> Array:
    return a / np.sqrt(dot(a, a))[..., None]


def smoothstep(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class Noise:
    """Smooth noise in the plane, about 0, from a lattice of random values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._lattice = rng.uniform(-1, 1, (256, 256)).astype(np.float32)

    def __call__(self, x: Array, y: Array, octaves: int = 1) -> Array:
        total = np.zeros_like(x)
        for octave in range(octaves):
            i, j = np.floor(x), np.floor(y)
            u, v = x - i, y - j
            u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
            a, b = i.astype(np.int32) & 255, j.astype(np.int32) & 255
            c, d = (a + 1) & 255, (b + 1) & 255
            near = self._lattice[a, b] * (1 - u) + self._lattice[c, b] * u
            total += (near * (1 - v) + (self._lattice[a, d] * (1 - u) + self._lattice[c, d] * u) * v) / 2**octave
            x, y = x * 2 + 17.3, y * 2 + 5.7
        return total


def mug_distance(p: Array) -> Array:
    """Distance from each point to the mug's surface: a rounded cup, hollowed, with an oval handle."""
    p = p - MUG_AT
    c, s = np.float32(np.cos(MUG_TURN)), np.float32(np.sin(MUG_TURN))
    x, y, z = p[..., 0] * c - p[..., 2] * s, p[..., 1], p[..., 0] * s + p[..., 2] * c
    axis = np.sqrt(x * x + z * z)

    def cup(radius: float, bottom: float, top: float, rounding: float) -> Array:
        # The cup narrows a little towards its foot.
        out = axis - (radius - 0.05 * (1 - np.clip(y / MUG_HEIGHT, 0, 1)) ** 2) + rounding
        up = np.abs(y - (top + bottom) / 2) - (top - bottom) / 2 + rounding
        outside = np.sqrt(np.maximum(out, 0) ** 2 + np.maximum(up, 0) ** 2)
        distance: Array = outside + np.minimum(np.maximum(out, up), 0) - rounding
        return distance

    solid = cup(MUG_RADIUS, 0, MUG_HEIGHT, 0.05)
    hollow = cup(MUG_RADIUS - MUG_THICK, 0.07, MUG_HEIGHT + 0.4, 0.06)
    # An oval ring, flattened as handles are, that stops at the cup's wall.
    hx, hy = (x - 0.42) / 0.86, y - 0.5
    ring = np.sqrt(hx * hx + hy * hy) - 0.28
    handle = (np.sqrt((ring / 0.8) ** 2 + (z / 1.15) ** 2) - 0.062) * 0.8
    k = 0.07
    h = np.clip(0.5 + 0.5 * (handle - solid) / k, 0, 1)
    body = handle * (1 - h) + solid * h - k * h * (1 - h)
    k = 0.022
    h = np.clip(0.5 - 0.5 * (body + hollow) / k, 0, 1)
    cut: Array = body * (1 - h) - hollow * h + k * h * (1 - h)
    return cut


def sphere_span(origin: Array, ray: Array, center: Array, radius: float) -> tuple[Array, Array]:
    """Where each ray enters and leaves a sphere; the first beyond the second where it misses."""
    to = origin - center
    b = dot(to, ray)
    root = b * b - dot(to, to) + radius * radius
    width = np.sqrt(np.maximum(root, 0))
    return np.where(root > 0, -b - width, FAR), np.where(root > 0, -b + width, -FAR)


def march(origin: Array, ray: Array, until: Array) -> Array:
    """How far each ray goes to the mug, FAR where it misses it or would go beyond `until`."""
    enter, leave = sphere_span(origin, ray, *MUG_BOUND)
    found = np.full(len(ray), FAR, np.float32)
    at = np.maximum(enter, NEAR)
    live = np.flatnonzero((at < leave) & (at < until))
    t = at[live]
    for _ in range(90):
        gap = mug_distance(origin[live] + ray[live] * t[:, None])
        near = gap < 0.0004
        found[live[near]] = t[near]
        t = t + np.maximum(gap, 0.0004) * 0.9
        going = ~near & (t < leave[live]) & (t < until[live])
        live, t = live[going], t[going]
        if not len(live):
            break
    return found


def hit(origin: Array, ray: Array) -> tuple[Array, Kinds]:
    """How far each ray goes, and what it meets there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        table = -origin[:, 1] / ray[:, 1]
        wall = (WALL_Z - origin[:, 2]) / ray[:, 2]
        coffee = (COFFEE_Y - origin[:, 1]) / ray[:, 1]
    spot = origin + ray * np.where(np.isfinite(coffee), coffee, 0)[:, None] - MUG_AT
    in_cup = spot[:, 0] ** 2 + spot[:, 2] ** 2 < (MUG_RADIUS - MUG_THICK + 0.01) ** 2
    enter, _ = sphere_span(origin, ray, ORANGE_AT, ORANGE_RADIUS)
    choices = np.stack([table, wall, np.where(in_cup, coffee, FAR), enter]).astype(np.float32)
    choices = np.where((choices > NEAR) & (choices < FARTHEST), choices, FAR)
    which = np.argmin(choices, axis=0)
    t = choices[which, np.arange(len(ray))]
    kind = np.array([TABLE, WALL, COFFEE, ORANGE], np.int8)[which]
    mug = march(origin, ray, t)
    kind = np.where(mug < t, MUG, np.where(t < FAR, kind, NOTHING)).astype(np.int8)
    return np.minimum(mug, t), kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """What the rays have met. albedo: of the diffuse part; shine: reflectance head-on; rough: of the reflection."""

    normal: Array
    albedo: Array
    shine: Array
    rough: Array


def surface(p: Array, kind: Kinds, noise: Noise) -> Surface:
    n = len(p)
    normal = np.zeros((n, 3), np.float32)
    albedo = np.zeros((n, 3), np.float32)
    shine, rough = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for which, make in ((TABLE, table_top), (WALL, wall), (MUG, mug), (COFFEE, coffee), (ORANGE, orange)):
        mask = kind == which
        if mask.any():
            normal[mask], albedo[mask], shine[mask], rough[mask] = make(p[mask], noise)
    return Surface(normal=normal, albedo=albedo, shine=shine, rough=rough)


Look = tuple[Array, Array, float | Array, float | Array]


def table_top(p: Array, noise: Noise) -> Look:
    """Oiled oak boards that run from left to right."""
    x, z = p[:, 0], p[:, 2]
    width = 0.78
    board = np.floor(z / width + 0.35)
    across = z / width + 0.35 - board
    shift = board * 7.31
    warp = noise(x * 0.55 + shift, z * 1.6 + shift, 3)
    rings = 0.5 + 0.5 * np.sin((z * 5.2 + warp * 1.5 + shift) * 6.283)
    fibres = noise(x * 4 + shift, z * 130, 2)
    pores = smoothstep(0.45, 0.9, noise(x * 9 + shift * 3, z * 210))
    tone = 0.30 + 0.34 * rings**1.5 + 0.16 * fibres + 0.20 * noise(board * 3.7, board * 1.9 + x * 0.2)
    albedo = color("c08a55") * (1 - tone[:, None]) + color("80502a") * tone[:, None]
    albedo *= (1 - 0.35 * pores)[:, None]
    seam = smoothstep(0.010, 0.0, np.minimum(across, 1 - across))
    albedo *= (1 - 0.8 * seam)[:, None]
    normal = np.tile(np.array([0, 1, 0], np.float32), (len(p), 1))
    normal[:, 2] += 0.010 * fibres
    return unit(normal), albedo, 0.035 * (1 - seam), 0.14


def wall(p: Array, noise: Noise) -> Look:
    """Painted plaster."""
    x, y = p[:, 0], p[:, 1]
    normal = np.tile(np.array([0, 0, 1], np.float32), (len(p), 1))
    normal[:, 0] += 0.035 * noise(x * 9, y * 9 + 40, 3)
    normal[:, 1] += 0.035 * noise(x * 9 + 80, y * 9, 3)
    albedo = color("cfc6b4") * (1 + 0.035 * noise(x * 1.3, y * 1.3 + 9, 3))[:, None]
    return unit(normal), albedo, 0.0, 0.0


def mug(p: Array, noise: Noise) -> Look:
    """Teal glaze outside, cream inside and where it thins out on the lip, bare clay at the foot."""
    e = np.float32(0.0008)
    normal = np.zeros_like(p)
    for corner in np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32):
        normal += corner * mug_distance(p + corner * e)[:, None]
    axis = np.hypot(p[:, 0] - MUG_AT[0], p[:, 2] - MUG_AT[2])
    drip = 0.012 * noise(np.arctan2(p[:, 2] - MUG_AT[2], p[:, 0] - MUG_AT[0]) * 4 + 30, p[:, 1] * 0, 2)
    inside = smoothstep(MUG_RADIUS - 0.012, MUG_RADIUS - 0.026, axis)
    lip = np.maximum(inside, smoothstep(MUG_HEIGHT - 0.03, MUG_HEIGHT - 0.008, p[:, 1] + drip)) * (p[:, 1] > 0.5)
    foot = smoothstep(0.105, 0.095, p[:, 1] + drip)
    speckle = smoothstep(0.62, 0.8, noise(p[:, 0] * 60 + p[:, 2] * 23, p[:, 1] * 60 - p[:, 2] * 41))
    glaze = color("1f6f73") * (1 + 0.10 * noise(p[:, 0] * 3, p[:, 1] * 4 + p[:, 2] * 3, 2))[:, None]
    glaze = glaze * (1 - 0.45 * speckle[:, None])
    albedo = glaze * (1 - lip[:, None]) + color("efe6d2") * lip[:, None]
    albedo = albedo * (1 - foot[:, None]) + color("b98d68") * foot[:, None]
    return unit(normal), albedo.astype(np.float32), 0.045 * (1 - foot), 0.012


def coffee(p: Array, _noise: Noise) -> Look:
    normal = np.tile(np.array([0, 1, 0], np.float32), (len(p), 1))
    edge = smoothstep(0.30, 0.39, np.hypot(p[:, 0] - MUG_AT[0], p[:, 2] - MUG_AT[2]))[:, None]
    return normal, color("2a140a") * (1 - edge) + color("6b3d1d") * edge, 0.03, 0.0


def orange(p: Array, noise: Noise) -> Look:
    """Peel with pores, and the star where the stalk was."""
    normal = (p - ORANGE_AT) / np.float32(ORANGE_RADIUS)
    pole = unit(np.array([-0.34, 0.86, 0.42], np.float32))
    side = unit(np.cross(pole, np.array([0, 0, 1], np.float32)))
    other = np.cross(pole, side)
    height, u, v = dot(normal, pole), dot(normal, side), dot(normal, other)
    latitude, longitude = np.arccos(np.clip(height, -1, 1)), np.arctan2(v, u)
    a, b = normal[:, 0] * 17 + normal[:, 2] * 7, normal[:, 1] * 17 - normal[:, 2] * 11
    bump = np.stack([noise(a, b), noise(a + 91, b + 37), noise(a + 43, b + 71)], axis=-1)
    dent = np.exp(-((latitude / 0.16) ** 2)) * np.sign(latitude)
    out = unit(normal - height[:, None] * pole + 1e-6)
    bent = unit(normal + 0.09 * bump - 0.55 * dent[:, None] * out)
    stalk = smoothstep(0.075, 0.055, latitude * (1 + 0.22 * np.cos(longitude * 5)))
    pale = np.exp(-((latitude / 0.3) ** 2))[:, None]
    albedo = color("ee7f12") * (1 - 0.35 * pale) + color("f3a32c") * 0.35 * pale
    albedo = albedo * (1 + 0.07 * noise(normal[:, 0] * 3 + 5, normal[:, 1] * 3 + normal[:, 2] * 2, 2))[:, None]
    albedo = albedo * (1 - stalk[:, None]) + color("66713a") * stalk[:, None]
    return bent, albedo.astype(np.float32), 0.035, 0.3


def room(ray: Array) -> Array:
    """The light of the room beyond the picture: a pale ceiling, dimmer towards the floor and the right."""
    up = 0.5 + 0.5 * ray[:, 1]
    left = 0.5 - 0.5 * ray[:, 0]
    return (0.05 + 0.24 * up * up + 0.10 * left)[:, None] * np.array([1.0, 1.03, 1.08], np.float32)


LIGHT_NORMAL = unit(np.cross(LIGHT_V, LIGHT_U))
if float(LIGHT_NORMAL @ -LIGHT_AT) < 0:
    LIGHT_NORMAL = -LIGHT_NORMAL
LIGHT_AREA = float(4 * np.linalg.norm(np.cross(LIGHT_U, LIGHT_V)))


def sees_light(origin: Array, ray: Array) -> Mask:
    with np.errstate(divide="ignore", invalid="ignore"):
        t = ((LIGHT_AT - origin) @ LIGHT_NORMAL) / (ray @ LIGHT_NORMAL)
    spot = origin + ray * np.where(np.isfinite(t), t, 0)[:, None] - LIGHT_AT
    u, v = spot @ LIGHT_U / (LIGHT_U @ LIGHT_U), spot @ LIGHT_V / (LIGHT_V @ LIGHT_V)
    # A window in four panes.
    panes = (np.abs(u) > 0.04) & (np.abs(v) > 0.04)
    seen: Mask = panes & (t > 0) & (np.abs(u) < 1) & (np.abs(v) < 1)
    return seen


def lit(p: Array, normal: Array, u: Array) -> Array:
    """The light that falls on each point from one point of the window, or none where something is between."""
    spot = LIGHT_AT + LIGHT_U * (2 * u[:, :1] - 1) + LIGHT_V * (2 * u[:, 1:] - 1)
    to = spot - p
    square = dot(to, to)
    ray = to / np.sqrt(square)[:, None]
    weight: Array = np.maximum(dot(ray, normal), 0) * np.maximum(-(ray @ LIGHT_NORMAL), 0) * LIGHT_AREA / square
    shining = np.flatnonzero(weight > 0)
    t, _ = hit(p[shining] + normal[shining] * 2 * NEAR, ray[shining])
    weight[shining[t < np.sqrt(square[shining])]] = 0
    light: Array = weight[:, None] * LIGHT
    return light


def about(normal: Array, u: Array) -> Array:
    """A ray from each surface, likelier the nearer to its normal (cosine)."""
    angle, z = 2 * np.pi * u[:, 0], 2 * u[:, 1] - 1
    ring = np.sqrt(np.maximum(1 - z * z, 0))
    ball = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1)
    return unit((normal + ball * 0.999).astype(np.float32))


def trace(origin: Array, ray: Array, draws: list[Array], noise: Noise, rng: np.random.Generator) -> Array:
    """The light that comes back along each ray, by one random path each. draws: numbers for the first hit, two each.

    The window is seen in mirrors alone, not by way of a dull surface (which is asked for its light instead).
    """
    light = np.zeros_like(ray)
    carried = np.ones_like(ray)
    direct = np.ones(len(ray), np.bool_)
    index = np.arange(len(ray))
    for bounce in range(BOUNCES):
        t, kind = hit(origin, ray)
        gone = kind == NOTHING
        seen = gone & direct & sees_light(origin, ray)
        light[index[gone]] += carried[gone] * room(ray[gone])
        light[index[seen]] += carried[seen] * LIGHT
        keep = ~gone
        index, origin, ray, carried, kind, t = (a[keep] for a in (index, origin, ray, carried, kind, t))
        if not len(index):
            break
        first = bounce == 0
        pick, toward, spread = (
            draw[index] if first else rng.random((len(index), 2), dtype=np.float32) for draw in draws
        )
        p = origin + ray * t[:, None]
        look = surface(p, kind, noise)
        facing = np.clip(-dot(ray, look.normal), 0, 1)
        reflectance = np.where(look.shine > 0, look.shine + (1 - look.shine) * (1 - facing) ** 5, 0)
        # Rough surfaces shine less at a grazing angle than smooth ones.
        reflectance = np.where(look.rough > 0.1, np.minimum(reflectance, 0.22), reflectance)
        # Small reflections of a bright window are followed more often than they carry light, and count for less.
        chance = np.where(reflectance > 0, np.clip(reflectance, 0.3, 0.8), 0)
        mirrored = pick[:, 0] < chance
        away = ray + 2 * facing[:, None] * look.normal
        away = unit((away + look.rough[:, None] * (about(look.normal, spread) - look.normal)).astype(np.float32))
        dull = ~mirrored
        share = np.where(dull, (1 - reflectance) / np.maximum(1 - chance, 0.1), reflectance / np.maximum(chance, 0.1))
        carried = carried * share[:, None] * np.where(dull[:, None], look.albedo, 1)
        direct = direct[keep] & mirrored
        falling = lit(p[dull], look.normal[dull], toward[dull]) / np.pi
        light[index[dull]] += carried[dull] * np.minimum(falling, 8)
        ray = np.where(dull[:, None], about(look.normal, spread), away).astype(np.float32)
        origin = (p + look.normal * 2 * NEAR).astype(np.float32)
    return np.minimum(light, 8)


def render(width: int, height: int, samples: int, seed: int) -> Array:
    """The scene in linear light, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    noise = Noise(rng)
    forward = unit(TARGET - CAMERA)
    right = unit(np.cross(forward, np.array([0, 1, 0], np.float32)))
    up = np.cross(right, forward)
    focus = float(np.linalg.norm(TARGET - CAMERA)) - 0.25
    rows, columns = np.divmod(np.arange(width * height), width)
    shifts = rng.random((5, width * height, 2), dtype=np.float32)
    step = np.array([0.7548776662, 0.5698402910])
    total = np.zeros((width * height, 3), np.float32)
    for sample in range(samples):
        # A low-discrepancy walk, begun elsewhere at each pixel: even coverage without a visible pattern.
        pixel, lens, *draws = ((shifts + (sample + 1) * step) % 1).astype(np.float32)
        x = ((columns + pixel[:, 0]) / width * 2 - 1) * HALF_WIDTH
        y = (1 - (rows + pixel[:, 1]) / height * 2) * HALF_WIDTH * height / width
        point = CAMERA + focus * (forward + x[:, None] * right + y[:, None] * up)
        angle, radius = 2 * np.pi * lens[:, 0], LENS * np.sqrt(lens[:, 1])
        eye = CAMERA + (radius * np.cos(angle))[:, None] * right + (radius * np.sin(angle))[:, None] * up
        total += trace(eye.astype(np.float32), unit((point - eye).astype(np.float32)), draws, noise, rng)
    return (total / samples).reshape(height, width, 3)


def develop(light: Array) -> Image.Image:
    """As a photograph: a little darker in the corners, highlights rolled off, in sRGB."""
    height, width, _ = light.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - 0.13 * (x * x + y * y))[..., None]
    mapped = np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1)
    srgb = np.where(mapped <= 0.0031308, mapped * 12.92, 1.055 * mapped ** (1 / 2.4) - 0.055)
    return Image.fromarray((srgb * 255 + 0.5).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=48, help="paths a pixel")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=PATH)
    args = parser.parse_args()
    picture = develop(render(args.width, args.width * 3 // 4, args.samples, args.seed))
    picture.save(args.out, quality=90, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
