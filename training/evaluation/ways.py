"""The requests by which a scene is edited."""

from collections.abc import Mapping
from types import MappingProxyType

from training.evaluation.figures import Way
from training.evaluation.scenes import Scene
from training.evaluation.service import Request
from training.world.jobs import PAIR, PAIRED, PRESETS

PLUS_SLUG = "qwen-image-edit-plus"
PAIR_SLUG = f"{PLUS_SLUG}-multi-lora"
STEPS = 20
SEED = 1

_EXACT: Mapping[str, object] = MappingProxyType({"seed": SEED, "go_fast": False, "num_inference_steps": STEPS})
_FAST: Mapping[str, object] = MappingProxyType({"seed": SEED, "go_fast": True})


def slug_of(job: str) -> str:
    """The model that does it."""
    if job == PAIR:
        return PAIR_SLUG
    return f"{PLUS_SLUG}-{job.replace('_', '-')}" if job in PRESETS else PLUS_SLUG


def requests_of(scene: Scene, *, second: str) -> dict[Way, Request]:
    """Each way that says something of the scene. second: the address of the second LoRA of a pair."""
    right, job = scene.asked, scene.job
    loras = {"lora": PAIRED[0], "lora_2_url": second} if job == PAIR else {}
    exact, fast = {**_EXACT, **loras}, {**_FAST, **loras}
    slug = slug_of(job)
    found = {
        Way.FULL: Request(slug=slug, prompt=right.prompt, pictures=right.pictures, params=exact),
        Way.FAST: Request(slug=slug, prompt=right.prompt, pictures=right.pictures, params=fast),
    }
    if slug != PLUS_SLUG:
        found[Way.BARE] = Request(slug=PLUS_SLUG, prompt=right.prompt, pictures=right.pictures, params=_EXACT)
    if scene.rivals:
        wrong = scene.rivals[0]
        found[Way.WRONG] = Request(slug=slug, prompt=wrong.prompt, pictures=wrong.pictures, params=exact)
    return found
