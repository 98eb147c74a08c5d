"""The presets' jobs on scenes of things. The base model is never asked these; each has an adapter."""

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from training.world import stage
from training.world.draft import Draft
from training.world.palette import GROUNDS, SKIES, WHITE, Colour
from training.world.scene import Camera, Floor, Light, Pattern, Scene

_TURNS = {
    45: ("将镜头向左旋转45度 Rotate the camera 45 degrees to the left.", "Rotate the camera 45 degrees to the left."),
    90: ("将镜头向左旋转90度 Rotate the camera 90 degrees to the left.", "Rotate the camera 90 degrees to the left."),
    135: (
        "将镜头向左旋转135度 Rotate the camera 135 degrees to the left.",
        "Rotate the camera 135 degrees to the left.",
    ),
    180: ("将镜头旋转180度 Turn the camera to the back view.", "Turn the camera to the back view."),
    225: (
        "将镜头向右旋转135度 Rotate the camera 135 degrees to the right.",
        "Rotate the camera 135 degrees to the right.",
    ),
    270: (
        "将镜头向右旋转90度 Rotate the camera 90 degrees to the right.",
        "Rotate the camera 90 degrees to the right.",
    ),
    315: (
        "将镜头向右旋转45度 Rotate the camera 45 degrees to the right.",
        "Rotate the camera 45 degrees to the right.",
    ),
}
_TOP = ("将镜头转为俯视", "Turn the camera to a top-down view.", "将镜头转为俯视 Turn the camera to a top-down view.")
_PLACES: dict[str, tuple[Floor, str, Colour]] = {
    "modern living room": (Floor(colour=GROUNDS["brown"], pattern=Pattern.STRIPES), "cream", stage.DAY),
    "sunny beach": (Floor(colour=GROUNDS["beige"]), "sky", stage.DAY),
    "photo studio": (Floor(colour=GROUNDS["gray"]), "silver", stage.DAY),
    "bright kitchen": (Floor(colour=GROUNDS["white"], pattern=Pattern.CHECKS), "cream", stage.DAY),
    "green garden": (Floor(colour=GROUNDS["mint"]), "sky", stage.DAY),
    "street at night": (Floor(colour=GROUNDS["gray"], pattern=Pattern.CHECKS), "silver", stage.NIGHT),
    "playroom": (Floor(colour=GROUNDS["pink"], pattern=Pattern.CHECKS), "sky", stage.DAY),
    "desert at sunset": (Floor(colour=GROUNDS["beige"]), "sky", stage.SUNSET),
}
_COVERED = {Pattern.STRIPES: "striped", Pattern.BANDS: "banded", Pattern.CHECKS: "checkered", Pattern.DOTS: "dotted"}
_LAMPS = {"left": 90.0, "right": -90.0, "front": 0.0, "back": 180.0}
_TINTS: dict[str, Colour] = {"warm": (1.12, 0.84, 0.6), "cold": (0.68, 0.86, 1.15), "white": WHITE}
_MAGENTA = (1.0, 0.0, 0.75)
_PRODUCT_LIGHT = Light(ambient=0.78, diffuse=0.3, shadows=False)


def multiple_angle(draft: Draft) -> None:
    """A scene from eight sides and from above; from each side the camera is turned to every other view."""
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2, 2)), stage.marked))
    sides = {a: draft.picture(replace(scene, camera=Camera(azimuth=a))) for a in range(0, 360, 45)}
    tops = {a: draft.picture(replace(scene, camera=Camera(azimuth=a, elevation=90))) for a in (0, 45)}
    starts = (0, *rng.sample([a for a in sides if a], 3))
    for start in starts:
        for turn, wordings in _TURNS.items():
            after = sides[(start + turn) % 360]
            draft.ask("multiple_angle", [sides[start]], after, wordings, rivals=f"turn from {start}")
        top = tops.get(start) or draft.picture(replace(scene, camera=Camera(azimuth=start, elevation=90)))
        draft.ask("multiple_angle", [sides[start]], top, _TOP, rivals=f"turn from {start}")


def product_photography(draft: Draft) -> None:
    rng = draft.rng
    thing = stage.things(rng, 1)[0]
    shot = draft.picture(Scene(things=(thing,), blank=True, light=_PRODUCT_LIGHT))
    name = thing.kind.value
    for place in rng.sample(list(_PLACES), 4):
        floor, sky, tint = _PLACES[place]
        scene = Scene(things=(thing,), floor=floor, sky=SKIES[sky], light=Light(azimuth=45.0, tint=tint))
        wordings = (
            f"Convert the white background image to a scene and place the {name} in the picture in a {place}",
            f"白底图转场景 {place}",
            f"白底图转场景, place the {name} in a {place}.",
        )
        draft.ask("product_photography", [shot], draft.picture(scene), wordings, rivals="place")


def texture_apply(draft: Draft, *, held_out: bool) -> None:
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 1, 2))))
    before = draft.picture(scene)
    chosen = rng.randrange(len(scene.things))
    for _ in range(4):
        skin = stage.swatch(rng, held_out=held_out)
        covered = replace(scene.things[chosen], skin=skin)
        things = tuple(covered if place == chosen else thing for place, thing in enumerate(scene.things))
        after, swatch = draft.picture(replace(scene, things=things)), draft.picture(Scene(swatch=skin))
        name = covered.kind.value
        wordings = (
            f"Apply the texture of image 2 to the {name}.",
            f"Apply the texture to the {name}",
            f"Apply {_COVERED[skin.pattern]} texture to {name}.",
            f"Cover the {name} with the texture from image 2.",
        )
        draft.ask("texture_apply", [before, swatch], after, wordings, rivals="swatch")


def texture_extract(draft: Draft, *, held_out: bool) -> None:
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 1, 2))))
    skins = [stage.swatch(rng, held_out=held_out) for _ in scene.things]
    covered = tuple(replace(thing, skin=skin) for thing, skin in zip(scene.things, skins, strict=True))
    before = draft.picture(replace(scene, things=covered))
    for thing in covered:
        name = thing.kind.value
        wordings = (
            f"Extract the texture from the {name}.",
            f"Extract {_COVERED[thing.skin.pattern]} texture from {name}",
            f"Extract the texture of the {name}",
        )
        draft.ask("texture_extract", [before], draft.picture(Scene(swatch=thing.skin)), wordings, rivals="extract")


def eigen_banana(draft: Draft) -> None:
    """A look for the whole picture."""
    rng = draft.rng
    before = draft.picture(stage.setting(rng, stage.things(rng, rng.choice((1, 2)))))
    for look, wordings in LOOKS.items():
        draft.ask("eigen_banana", [before], draft.retouched(_LOOKS[look], before), wordings, rivals="look")


LOOKS = {
    "gray": ("Convert the photo to black and white.", "Make the photo black and white"),
    "sepia": ("Apply a sepia vintage filter.", "Make the photo look vintage sepia"),
    "negative": ("Turn the photo into a color negative.", "Invert the colors of the photo"),
    "faded": ("Apply a faded pastel look.", "Make the photo faded and pastel"),
}


def _gray(picture: Tensor) -> Tensor:
    level = (picture.float() * picture.new_tensor((0.299, 0.587, 0.114), dtype=torch.float32)[:, None, None]).sum(0)
    return level.round().to(torch.uint8).expand(3, -1, -1)


def _sepia(picture: Tensor) -> Tensor:
    tint = torch.tensor((1.0, 0.84, 0.62), device=picture.device)[:, None, None]
    return (_gray(picture).float() * tint).round().to(torch.uint8)


def _negative(picture: Tensor) -> Tensor:
    return 255 - picture


def _faded(picture: Tensor) -> Tensor:
    return (picture.float() * 0.4 + _gray(picture).float() * 0.1 + 120).clamp(max=255).round().to(torch.uint8)


_LOOKS = {"gray": _gray, "sepia": _sepia, "negative": _negative, "faded": _faded}


def blend_it(draft: Draft) -> None:
    """A product pasted into a scene with its white surround is made part of it."""
    rng = draft.rng
    pasted, *others = stage.things(rng, 2)
    if rng.random() < 0.5:
        pasted, others = others[0], [pasted]
    scene = stage.setting(rng, (pasted, *others))
    without = draft.picture(replace(scene, things=tuple(others)))
    shot = draft.picture(Scene(things=(pasted,), blank=True, light=_PRODUCT_LIGHT))
    crude, after = draft.retouched(_paste, without, shot), draft.picture(scene)
    wordings = (
        "溶图,纠正产品透视角度和光影并使产品融入背景",
        "溶图 Blend the product into the background.",
        f"Blend the {pasted.kind.value} into the scene, correct its light and shadow.",
    )
    draft.ask("blend_it", [crude], after, wordings)


def _box(mask: Tensor, margin: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what the mask covers, and a margin."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    high, wide = mask.shape
    top, bottom = max(0, int(rows.min()) - margin), min(high, int(rows.max()) + 1 + margin)
    return top, bottom, max(0, int(columns.min()) - margin), min(wide, int(columns.max()) + 1 + margin)


def _paste(background: Tensor, shot: Tensor) -> Tensor:
    top, bottom, left, right = _box((shot < 250).any(0), 3)
    pasted = background.clone()
    pasted[:, top:bottom, left:right] = shot[:, top:bottom, left:right]
    return pasted


def relight(draft: Draft) -> None:
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2))))
    before = draft.picture(scene)
    for side, tint in rng.sample(list(product(_LAMPS, _TINTS)), 5):
        wordings = (
            f"重新照明, {tint} light from the {side}",
            f"重新照明 Relight the scene with {tint} light from the {side}.",
            f"Relight the scene with {tint} light from the {side}.",
        )
        lamp = Light(azimuth=_LAMPS[side], height=40.0, ambient=0.36, diffuse=0.8, tint=_TINTS[tint])
        draft.ask("relight", [before], draft.picture(replace(scene, light=lamp)), wordings, rivals="lamp")


def remove_lighting(draft: Draft) -> None:
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2))))
    flat = draft.picture(replace(scene, light=Light(ambient=0.92, diffuse=0.0, shadows=False)))
    wordings = (
        "移除光影,使用柔和光线",
        "移除光影 Remove the light and shadow, use soft light.",
        "Remove light and shadow.",
    )
    for side, tint in rng.sample(list(product(_LAMPS, _TINTS)), 3):
        lamp = Light(azimuth=_LAMPS[side], height=40.0, ambient=0.36, diffuse=0.8, tint=_TINTS[tint])
        draft.ask("remove_lighting", [draft.picture(replace(scene, light=lamp))], flat, wordings)


def next_scene(draft: Draft) -> None:
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2))))
    before = draft.picture(scene)
    shots = {
        "the camera pushes in closer": Camera(distance=3.6),
        "the camera pulls back": Camera(distance=7.5),
        "the camera rises high above": Camera(elevation=45),
        "the camera sinks to the ground": Camera(elevation=4),
    }
    for words, camera in shots.items():
        after = draft.picture(replace(scene, camera=camera))
        draft.ask("next_scene", [before], after, (f"Next Scene: {words}.", f"Next Scene: {words}"), rivals="shot")


def eraser(draft: Draft) -> None:
    """Of two things goes the one with a magenta ring drawn around it."""
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, 2))
    whole = draft.picture(scene)
    wordings = ("Remove what is marked.", "Erase the marked object.", "去除标记的物体 Remove the marked object.")
    for place in range(2):
        left = draft.picture(replace(scene, things=scene.things[:place] + scene.things[place + 1 :]))
        draft.ask("eraser", [draft.retouched(_ring, whole, left)], left, wordings)


def _ring(whole: Tensor, without: Tensor) -> Tensor:
    top, bottom, left, right = _box(((whole.int() - without.int()).abs() > 40).any(0), 2)
    high, wide = whole.shape[1:]
    y = torch.arange(high, device=whole.device)[:, None] - (top + bottom) / 2
    x = torch.arange(wide, device=whole.device)[None] - (left + right) / 2
    off = ((x / (right - left)) ** 2 + (y / (bottom - top)) ** 2).sqrt() * 2
    ring = ((off - 1.0).abs() * (bottom - top + right - left) / 4 < 2.0)[None]
    colour = torch.tensor(_MAGENTA, device=whole.device)[:, None, None] * 255
    return torch.where(ring, colour, whole.float()).to(torch.uint8)


def pair(draft: Draft) -> None:
    """Two adapters at once: the camera turned, and a look for the whole picture."""
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2)), stage.marked))
    before = draft.picture(scene)
    for turn, look in rng.sample(list(product(_TURNS, LOOKS)), 4):
        turned = draft.picture(replace(scene, camera=Camera(azimuth=turn)))
        prompt = f"{_TURNS[turn][1]} {rng.choice(LOOKS[look])}"
        draft.ask("pair", [before], draft.retouched(_LOOKS[look], turned), (prompt,), rivals="pair")
