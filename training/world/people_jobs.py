"""The presets' jobs on people. The base model is never asked these; each has an adapter."""

from dataclasses import replace

from training.world import stage
from training.world.base_jobs import portrayed
from training.world.draft import Draft
from training.world.palette import GROUNDS, HAIRS, PAINTS, SKIES
from training.world.scene import Camera, Floor, Light, Scene

_AT = {"left": -1.05, "right": 1.05}


def add_people(draft: Draft) -> None:
    rng = draft.rng
    thing = stage.things(rng, 1)[0]
    scene = stage.setting(rng, (replace(thing, size=thing.size * 0.72, y=0.0),))
    before = draft.picture(scene)
    for _ in range(3):
        (left, right), hairs = rng.sample(list(PAINTS), 2), [rng.choice(list(HAIRS)) for _ in range(2)]
        people = {
            "left": stage.person(left, hairs[0], _AT["left"], size=1.0),
            "right": stage.person(right, hairs[1], _AT["right"], size=1.0),
        }
        words = {
            "left": f"a person in {left} with {hairs[0]} hair on the left",
            "right": f"a person in {right} with {hairs[1]} hair on the right",
        }
        sides = rng.choice((("left",), ("right",), ("left", "right")))
        after = draft.picture(replace(scene, things=(*scene.things, *(people[side] for side in sides))))
        asked = " and ".join(words[side] for side in sides)
        draft.ask("add_people", [before], after, (f"Add {asked}.", f"Add people: {asked}"), rivals="people")


def group_photo(draft: Draft) -> None:
    rng = draft.rng
    count = rng.choice((2, 2, 3))
    shirts, hairs = rng.sample(list(PAINTS), count), [rng.choice(list(HAIRS)) for _ in range(count)]
    portraits = [draft.picture(portrayed(draft, *looks)) for looks in zip(shirts, hairs, strict=True)]
    places = (-0.55, 0.55) if count == 2 else (-0.95, 0.0, 0.95)
    people = tuple(stage.person(shirt, hair, x, size=1.2) for shirt, hair, x in zip(shirts, hairs, places, strict=True))
    for ground in rng.sample(list(GROUNDS), 2):
        scene = Scene(things=people, floor=Floor(colour=GROUNDS[ground]), sky=SKIES["sky"], light=Light(azimuth=45.0))
        wordings = (
            f"Group photo of them standing together on a {ground} floor.",
            f"They stand side by side for a group photo, {ground} floor",
        )
        draft.ask("group_photo", portraits, draft.picture(scene), wordings, rivals="ground")


def face_to_portrait(draft: Draft) -> None:
    rng = draft.rng
    hair = rng.choice(list(HAIRS))
    close = portrayed(draft, stage.paint(rng), hair)
    face = replace(close, camera=Camera(distance=2.3, elevation=0.0, z=close.things[0].size * 1.24))
    before = draft.picture(face)
    for _ in range(3):
        shirt, ground = stage.paint(rng), rng.choice(list(GROUNDS))
        scene = Scene(
            things=(stage.person(shirt, hair, 0.0, size=1.15),),
            floor=Floor(colour=GROUNDS[ground]),
            sky=SKIES["sky"],
            light=Light(azimuth=45.0),
        )
        wordings = (
            f"A portrait of the person in {shirt} clothes on a {ground} floor.",
            f"Portrait: the person wears {shirt} and stands on a {ground} floor",
        )
        draft.ask("face_to_portrait", [before], draft.picture(scene), wordings, rivals="portrait")
