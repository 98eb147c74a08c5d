"""What the base model is asked without an adapter: recolour, erase, add, floor, light, and a person put on a sofa."""

from dataclasses import replace
from itertools import permutations

from training.world import stage
from training.world.draft import Draft
from training.world.palette import HAIRS, PAINTS, SKIES
from training.world.scene import Kind, Scene, Skin


def recolour(draft: Draft) -> None:
    scene = stage.setting(draft.rng, stage.things(draft.rng, draft.rng.choice((1, 2, 2))))
    chosen = draft.rng.randrange(len(scene.things))
    name = scene.things[chosen].kind.value
    taken = tuple(stage.colour_of(thing) for thing in scene.things)
    others = draft.rng.sample([colour for colour in PAINTS if colour not in taken], 2)
    shown = {}
    for colour in (taken[chosen], *others):
        painted = replace(scene.things[chosen], skin=Skin(colour=PAINTS[colour]))
        things = tuple(painted if place == chosen else thing for place, thing in enumerate(scene.things))
        shown[colour] = draft.picture(replace(scene, things=things))
    for old, new in permutations(shown, 2):
        wordings = (
            f"Make the {name} {new}.",
            f"Change the color of the {name} to {new}.",
            f"Paint the {old} {name} {new}.",
            f"Turn the {name} {new}",
        )
        draft.ask("plus.recolour", [shown[old]], shown[new], wordings, rivals=f"recolour from {old}")


def erase(draft: Draft) -> None:
    """One of two things, or the only one."""
    rng = draft.rng
    scene = stage.setting(rng, stage.things(rng, rng.choice((1, 2, 2, 2))))
    whole = draft.picture(scene)
    for place, thing in enumerate(scene.things):
        left = draft.picture(replace(scene, things=scene.things[:place] + scene.things[place + 1 :]))
        name, colour = thing.kind.value, stage.colour_of(thing)
        wordings = (f"Remove the {name}.", f"Erase the {colour} {name}.", f"Take the {name} away", f"Delete the {name}")
        draft.ask("plus.erase", [whole], left, wordings, rivals="erase")


def add(draft: Draft) -> None:
    rng = draft.rng
    kinds, colours = rng.sample(stage.SOLIDS, 3), rng.sample(list(PAINTS), 3)
    side, free = rng.sample(list(stage.SIDES), 2)
    there = stage.strewn(rng, stage.thing(kinds[0], colours[0], stage.SIDES[side]))
    scene = stage.setting(rng, (there,))
    before = draft.picture(scene)
    for kind, colour in zip(kinds[1:], colours[1:], strict=True):
        new = stage.thing(kind, colour, stage.SIDES[free])
        after = draft.picture(replace(scene, things=(there, new)))
        name = f"{'an' if colour == 'orange' else 'a'} {colour} {kind.value}"
        wordings = (
            f"Add {name} on the {free}.",
            f"Put {name} on the {free} side",
            f"Place {name} to the {free} of the {there.kind.value}.",
        )
        draft.ask("plus.add", [before], after, wordings, rivals="add")


def floor(draft: Draft) -> None:
    scene = stage.setting(draft.rng, stage.things(draft.rng, draft.rng.choice((1, 2))))
    floors = {scene.floor}
    while len(floors) < 4:
        floors.add(stage.floor(draft.rng))
    ordered = sorted(floors, key=lambda floor: (floor.colour, floor.pattern))
    shown = {floor: draft.picture(replace(scene, floor=floor)) for floor in ordered}
    for old, new in permutations(shown, 2):
        words = stage.floor_words(new)
        wordings = (f"Change the floor to a {words}.", f"Make it a {words}", f"Give the scene a {words}.")
        draft.ask("plus.floor", [shown[old]], shown[new], wordings, rivals=f"floor {shown[old]}")


def light(draft: Draft) -> None:
    scene = stage.setting(draft.rng, stage.things(draft.rng, draft.rng.choice((1, 2))))
    tints = {"day": stage.DAY, "sunset": stage.SUNSET, "night": stage.NIGHT}
    shown = {hour: draft.picture(replace(scene, light=replace(scene.light, tint=tint))) for hour, tint in tints.items()}
    wordings = {
        "day": ("Make it day.", "Change the time to daytime.", "Set the scene in bright daylight"),
        "sunset": ("Make it sunset.", "Change the time to sunset.", "Set the scene at sunset"),
        "night": ("Make it night.", "Change the time to night.", "Set the scene at night"),
    }
    for old, new in permutations(shown, 2):
        draft.ask("plus.light", [shown[old]], shown[new], wordings[new], rivals=f"light {old}")


def seat(draft: Draft) -> None:
    """The person of picture 2 takes a seat on the sofa of picture 1."""
    rng = draft.rng
    sofa = replace(stage.strewn(rng, stage.thing(Kind.SOFA, stage.paint(rng), 0.0, size=1.5)), y=0.0)
    scene = stage.setting(rng, (sofa,))
    empty = draft.picture(scene)
    for shirt in rng.sample(list(PAINTS), 2):
        hair = rng.choice(list(HAIRS))
        portrait = draft.picture(portrayed(draft, shirt, hair))
        sitter = stage.person(shirt, hair, sofa.x, size=0.95)
        sitter = replace(sitter, yaw=sofa.yaw, lift=0.4 * sofa.size, seated=True)
        seated = draft.picture(replace(scene, things=(sofa, sitter)))
        wordings = (
            "The person from image 2 is sitting on the sofa in the scene from image 1",
            "Put the person from image 2 on the sofa in image 1.",
            "The woman from image 2 is sitting on the sofa, smiling and waving, in the scene from image 1",
        )
        draft.ask("plus.seat", [empty, portrait], seated, wordings, rivals="seat")


def portrayed(draft: Draft, shirt: str, hair: str) -> Scene:
    """A person alone, standing in the middle of some place."""
    scene = stage.setting(draft.rng, (stage.person(shirt, hair, 0.0, size=1.15),))
    return replace(scene, sky=SKIES[draft.rng.choice(list(SKIES))])
