"""Scenes to pictures: ray casting, four rays a pixel, hard shadows, in whole tensors."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from training.world.palette import Colour
from training.world.scene import Layout, Pattern, Scene, Skin, pack

SIDE_PX = 128
_RAYS = 2 * SIDE_PX
_HALF_VIEW = 0.31
_NEVER = 1e6
_DARK: Colour = (0.10, 0.10, 0.14)
_LIPS: Colour = (0.74, 0.20, 0.20)
# Plain numbers, because a compiled comparison with an enum's member is silently false.
_STRIPES, _BANDS, _CHECKS, _DOTS, _FACE = (
    float(kind) for kind in (Pattern.STRIPES, Pattern.BANDS, Pattern.CHECKS, Pattern.DOTS, Pattern.FACE)
)
Vector = tuple[Tensor, Tensor, Tensor]


def render(scenes: Sequence[Scene], *, device: torch.device, compiled: bool = True) -> Tensor:
    """The scenes' pictures: uint8, N × 3 × 128 × 128. compiled: fuse the arithmetic (a minute, once a process)."""
    packed = [pack(scene) for scene in scenes]
    pictures = torch.empty(len(scenes), 3, SIDE_PX, SIDE_PX, dtype=torch.uint8, device=device)
    for start, one in enumerate(packed):
        solids = torch.from_numpy(one.solids).to(device)[:, :, None]
        setting = torch.from_numpy(one.setting).to(device)[:, None]
        cast = _compiled(one.layout) if compiled else partial(_cast, one.layout)
        colour = torch.stack(cast(solids, setting, *_plane(device)))
        pictures[start] = _averaged(colour)
    for index, scene in enumerate(scenes):
        if scene.swatch is not None:
            pictures[index] = _swatch(scene.swatch, device)
    return pictures


def _averaged(colour: Tensor) -> Tensor:
    """3 × rays to 3 × 128 × 128 bytes."""
    rays = colour.reshape(3, SIDE_PX, 2, SIDE_PX, 2).mean((2, 4))
    return (rays.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _swatch(skin: Skin, device: torch.device) -> Tensor:
    right, up = _plane(device)
    painted = _paint((right, right, right), up, skin, device)
    return _averaged(torch.stack(painted))


def _paint(across: Vector, up: Tensor, skin: Skin, device: torch.device) -> Vector:
    kind = torch.tensor(float(skin.pattern), device=device)
    second = _patterned(across[0], up, kind, torch.tensor(float(skin.repeats), device=device))
    return tuple(torch.where(second, b, a) for a, b in zip(skin.colour, skin.second, strict=True))  # type: ignore[return-value]


@cache
def _plane(device: torch.device) -> tuple[Tensor, Tensor]:
    """Every ray's place on the picture plane, right and up, in [-1, 1]."""
    place = (torch.arange(_RAYS, dtype=torch.float32, device=device) + 0.5) / _RAYS * 2 - 1
    return place.repeat(_RAYS), -place.repeat_interleave(_RAYS)


@cache
def _compiled(layout: Layout) -> Callable[..., Vector]:
    return torch.compile(partial(_cast, layout), dynamic=False)


def _cast(layout: Layout, solids: Tensor, setting: Tensor, right: Tensor, up: Tensor) -> Vector:
    """Colour of each ray. solids: slots × WIDTH × 1; setting: 32 × 1; right, up: rays."""
    eye = (setting[0], setting[1], setting[2])
    ray = _norm(
        tuple(setting[9 + k] + _HALF_VIEW * (right * setting[3 + k] + up * setting[6 + k]) for k in range(3))  # type: ignore[arg-type]
    )
    near, normal, own = _first_hit(layout, solids, eye, ray)
    to_floor = torch.where(ray[2] < -1e-4, -eye[2] / ray[2], _NEVER)
    on_thing = near < to_floor.clamp(max=_NEVER)
    on_floor = ~on_thing & (to_floor < _NEVER)
    reach = torch.minimum(near, to_floor).clamp(max=50.0)
    at = (eye[0] + reach * ray[0], eye[1] + reach * ray[1], eye[2] + reach * ray[2])
    floor, blank = _floor(at, setting), setting[31]
    thing = _skin(at, normal, own)
    lamp = (setting[12], setting[13], setting[14])
    facing = torch.where(on_thing, _dot(normal, lamp), lamp[2]).clamp(min=0)
    start = tuple(
        a + 2e-3 * torch.where(on_thing, n, float(k == 2)) for k, (a, n) in enumerate(zip(at, normal, strict=True))
    )
    shaded = _shadowed(layout, solids, start, lamp) & (setting[20] > 0)  # type: ignore[arg-type]
    lit = setting[15] + setting[16] * facing * torch.where(shaded, 0.0, 1.0)
    fog = torch.where(on_floor, ((reach - 5.5) / 6.0).clamp(0, 1), 0.0)
    shown = []
    for k in range(3):
        sky = setting[28 + k] * setting[17 + k]
        ground = floor[k] * lit * setting[17 + k]
        around = torch.where(on_floor, ground + (sky - ground) * fog, sky)
        around = torch.where(blank > 0, 1.0, around)
        shown.append(torch.where(on_thing, thing[k] * lit * setting[17 + k], around))
    return shown[0], shown[1], shown[2]


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _norm(a: Vector) -> Vector:
    scale = torch.rsqrt(_dot(a, a))
    return a[0] * scale, a[1] * scale, a[2] * scale


def _local(solid: Tensor, point: Vector, ray: Vector) -> tuple[Vector, Vector]:
    """A ray in the solid's own frame."""
    x, y, z = (point[k] - solid[k] for k in range(3))
    cos, sin = solid[6], solid[7]
    return (cos * x + sin * y, cos * y - sin * x, z), (cos * ray[0] + sin * ray[1], cos * ray[1] - sin * ray[0], ray[2])


def _slab(point: Tensor, ray: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(ray.abs() < 1e-6, 1e-6, ray)
    a, b = (-half - point) * inverse, (half - point) * inverse
    return torch.minimum(a, b), torch.maximum(a, b)


def _round(point: Vector, ray: Vector, radius: Tensor, *, flat: bool) -> tuple[Tensor, Tensor]:
    """Where a ray enters and leaves a ball, or (flat) an endless upright cylinder."""
    a = ray[0] * ray[0] + ray[1] * ray[1]
    b = point[0] * ray[0] + point[1] * ray[1]
    c = point[0] * point[0] + point[1] * point[1] - radius * radius
    if not flat:
        a, b, c = a + ray[2] * ray[2], b + point[2] * ray[2], c + point[2] * point[2]
    a = a.clamp(min=1e-9)
    under = b * b - a * c
    root = under.clamp(min=0).sqrt()
    missed = under < 0
    return torch.where(missed, _NEVER, (-b - root) / a), torch.where(missed, -_NEVER, (-b + root) / a)


def _span(solid: Tensor, shape: int, point: Vector, ray: Vector) -> tuple[Tensor, Tensor, Vector]:
    """Where a local ray enters and leaves a solid, and the normal it enters through."""
    if shape == 0:
        spans = [_slab(point[k], ray[k], solid[3 + k]) for k in range(3)]
        enter = torch.maximum(torch.maximum(spans[0][0], spans[1][0]), spans[2][0])
        leave = torch.minimum(torch.minimum(spans[0][1], spans[1][1]), spans[2][1])
        normal = tuple(torch.where(spans[k][0] == enter, -torch.sign(ray[k]), 0.0) for k in range(3))
        return enter, leave, normal  # type: ignore[return-value]
    flat = shape == 1
    enter, leave = _round(point, ray, solid[3], flat=flat)
    out = 1 / solid[3]
    x, y = (point[0] + enter * ray[0]) * out, (point[1] + enter * ray[1]) * out
    if not flat:
        return enter, leave, (x, y, (point[2] + enter * ray[2]) * out)
    low, high = _slab(point[2], ray[2], solid[5])
    capped = low > enter
    normal = (torch.where(capped, 0.0, x), torch.where(capped, 0.0, y), torch.where(capped, -torch.sign(ray[2]), 0.0))
    return torch.maximum(enter, low), torch.minimum(leave, high), normal


def _first_hit(layout: Layout, solids: Tensor, eye: Vector, ray: Vector) -> tuple[Tensor, Vector, list[Tensor]]:
    """Distance to the nearest solid, its normal there, and what `_skin` needs of it: columns 6–19 and its shape."""
    near = torch.full_like(ray[0], _NEVER)
    zero = torch.zeros_like(near)
    normal: Vector = (zero, zero, zero)
    own = [zero] * 15
    for slot, shape in enumerate(layout.shapes):
        solid = solids[slot]
        enter, leave, facing = _span(solid, shape, *_local(solid, eye, ray))
        closer = (enter < leave) & (enter > 0) & (enter < near)
        near = torch.where(closer, enter, near)
        cos, sin = solid[6], solid[7]
        world = (cos * facing[0] - sin * facing[1], sin * facing[0] + cos * facing[1], facing[2])
        normal = tuple(torch.where(closer, w, n) for w, n in zip(world, normal, strict=True))  # type: ignore[assignment]
        mine = [*(solid[k] for k in range(6, 20)), torch.full_like(zero, shape)]
        own = [torch.where(closer, value, kept) for value, kept in zip(mine, own, strict=True)]
    return near, normal, own


def _shadowed(layout: Layout, solids: Tensor, start: Vector, lamp: Vector) -> Tensor:
    blocked = torch.zeros_like(start[0], dtype=torch.bool)
    for slot, shape in enumerate(layout.shapes):
        solid = solids[slot]
        enter, leave, _ = _span(solid, shape, *_local(solid, start, lamp))
        blocked = blocked | ((enter < leave) & (leave > 1e-3))
    return blocked


def _floor(at: Vector, setting: Tensor) -> Vector:
    x, y = torch.floor(at[0] + 0.5), torch.floor(at[1] + 0.5)
    pattern = setting[27]
    checks = (x + y) - 2 * torch.floor((x + y) / 2) > 0.5
    stripes = x - 2 * torch.floor(x / 2) > 0.5
    second = (checks & (pattern == _CHECKS)) | (stripes & (pattern == _STRIPES))
    return tuple(torch.where(second, setting[24 + k], setting[21 + k]) for k in range(3))  # type: ignore[return-value]


def _patterned(across: Tensor, up: Tensor, pattern: Tensor, repeats: Tensor) -> Tensor:
    """Where the second colour shows; across, up: over the thing in [-1, 1]. One repeat is a stripe of each colour."""
    s, r = (across + 1) * repeats, (up + 1) * repeats
    whole_s, whole_r = torch.floor(s), torch.floor(r)
    odd_s = whole_s - 2 * torch.floor(whole_s / 2) > 0.5
    odd_r = whole_r - 2 * torch.floor(whole_r / 2) > 0.5
    x, y = s / 2 - torch.floor(s / 2) - 0.5, r / 2 - torch.floor(r / 2) - 0.5
    dot = x * x + y * y < 0.09
    return (
        (odd_s & (pattern == _STRIPES))
        | (odd_r & (pattern == _BANDS))
        | ((odd_s ^ odd_r) & (pattern == _CHECKS))
        | (dot & (pattern == _DOTS))
    )


def _skin(at: Vector, normal: Vector, own: list[Tensor]) -> Vector:
    """The thing's colour where it was hit."""
    cos, sin, ox, oy, oz, scale, *rest = own
    a, b, pattern, repeats, shape = rest[0:3], rest[3:6], rest[6], rest[7], rest[8]
    dx, dy = at[0] - ox, at[1] - oy
    x, y, z = (cos * dx + sin * dy) * scale, (cos * dy - sin * dx) * scale, (at[2] - oz) * scale
    nx, ny, nz = (cos * normal[0] + sin * normal[1]).abs(), (cos * normal[1] - sin * normal[0]).abs(), normal[2].abs()
    round_about = torch.atan2(x, -y) * (2 / torch.pi)
    box = shape < 0.5
    top = torch.where(box, (nz > nx) & (nz > ny), (shape < 1.5) & (nz > 0.9))
    across = torch.where(box, torch.where((nx > ny) & ~top, y, x), torch.where(top, x, round_about))
    along = torch.where(top, y, z)
    second = _patterned(across, along, pattern, repeats)
    face = pattern == _FACE
    hair = face & ((z > 0.42) | (y > 0.2))
    front = face & (y < 0)
    eye = front & ((x.abs() - 0.36) ** 2 + (z - 0.12) ** 2 < 0.022)
    mouth = front & ((z + 0.42).abs() < 0.09) & (x.abs() < 0.3)
    shown = []
    for k in range(3):
        colour = torch.where(second | hair, b[k], a[k])
        colour = torch.where(eye & ~hair, _DARK[k], colour)
        shown.append(torch.where(mouth, _LIPS[k], colour))
    return shown[0], shown[1], shown[2]
