"""The checkpoint that is taken where none is named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.download import plan_download
from darkroom.checkpoint.locate import NANO, find_cached
from darkroom.checkpoint.published import PUBLISHED
from darkroom.cli import machine
from darkroom.cli.console import note
from darkroom.cli.plan import plan_for
from darkroom.errors import BadCheckpoint, BadSetting
from darkroom.memory.needs import Needs
from darkroom.memory.plan import in_gb
from darkroom.settings import Settings

REAL: Final = "Qwen/Qwen-Image-Edit-2509"


def with_checkpoint(
    settings: Settings,
    look: Callable[[], Mapping[str, Any]] = lambda: machine.probe()[1],
    *,
    tell: Callable[[str], object] = note,
) -> Settings:
    """The settings with a checkpoint: the one they name, else the real one where it can be served at once, else the
    small one that comes along, which is told with the reason. look: what torch sees, asked only if it matters."""
    if settings.checkpoint is not None:
        return settings
    why = not_here(find_cached(REAL)) or no_room(settings, look())
    if why is None:
        tell(f"darkroom: no checkpoint is named: this is {REAL}, which is in the Hugging Face cache")
        return settings.model_copy(update={"checkpoint": REAL})
    tell(
        "darkroom: no checkpoint is named: this is nano, which comes with Darkroom; it edits small rendered scenes, "
        "and makes little of a photo"
    )
    tell(
        f"darkroom: the real one is {REAL}; {why}. Where a GPU has room for it, `hf download {REAL}` is all it takes; "
        "DARKROOM_CHECKPOINT names any other"
    )
    return settings.model_copy(update={"checkpoint": str(NANO)})


def not_here(folder: Path | None) -> str | None:
    """Why the real checkpoint can't be loaded from its folder in the cache; None if all of it is there."""
    if folder is None:
        return "it is not in the Hugging Face cache"
    try:
        download = plan_download(folder, PUBLISHED[REAL])
    except BadCheckpoint as error:
        return error.message
    return f"{in_gb(download.missing_bytes)} of it are still to be downloaded" if download else None


def no_room(settings: Settings, found: Mapping[str, Any]) -> str | None:
    """Why no device that the settings allow can hold the real checkpoint; None if one can. found: what torch sees."""
    _, device = machine.choose_device(settings, found)
    if device is None or device.kind == "cpu":
        return "it wants a GPU, and none is to be used here"
    try:
        plan_for(settings, Needs.read(PUBLISHED[REAL], WorkingSizes()), device, auto=found["dtype"])
    except BadSetting as error:
        return error.message
    return None
