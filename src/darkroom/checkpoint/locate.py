"""From the name of a checkpoint to its folder."""

import re
from pathlib import Path
from typing import Final

from darkroom.errors import BadCheckpoint

NANO: Final = Path(__file__).parents[1] / "nano"
"""The small checkpoint that comes with the package."""

_WANTED = (
    "model_index.json",
    "darkroom.json",
    "loras/*.safetensors",
    "scheduler/*.json",
    "tokenizer/*",
    "processor/*",
    *(f"{part}/*.{suffix}" for part in ("transformer", "text_encoder", "vae") for suffix in ("json", "safetensors")),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether it may be a Hugging Face id, where it is no folder."""
    return _HUB_ID.fullmatch(name) is not None


def known_as(name: str | None) -> str | None:
    """What a checkpoint is called however it was named: nano, its folder's whole path, or its Hugging Face id."""
    if name is None:
        return None
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        return name
    return "nano" if folder == NANO.resolve() else str(folder)


def locate(name: str, *, fetch: bool = True) -> Path:
    """The folder of the checkpoint `name`: itself a folder, or a Hugging Face id whose files are fetched if need be.

    fetch False: look into the Hugging Face cache only, where not all of the files need be yet. Raises `BadCheckpoint`
    with the remedy when it is neither, or can't be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BadCheckpoint(f"checkpoint {name!r} is a file; name the folder that holds model_index.json")
    if not is_hub_id(name):
        raise BadCheckpoint(
            f"checkpoint {name!r}: there is no such folder, and it is no Hugging Face id (owner/name); "
            "`darkroom checkpoints make --size tiny DIR` makes a small one"
        )
    if fetch:
        return _fetch(name)
    if (cached := find_cached(name)) is None:
        raise BadCheckpoint(
            f"checkpoint {name!r} is not in the Hugging Face cache yet; "
            f"`hf download {name}` brings it, or the first start of `darkroom serve`"
        )
    return cached


def find_cached(name: str) -> Path | None:
    """The folder of the Hugging Face id `name` in the cache, where not all of its files need be; None without one."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  half a second that a folder does without
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except GatedRepoError as error:
        raise BadCheckpoint(f"checkpoint {name!r} is gated: accept its terms on huggingface.co, then log in") from error
    except RepositoryNotFoundError as error:
        raise BadCheckpoint(
            f"checkpoint {name!r}: no such folder here and no such model on Hugging Face; check the name, "
            "or log in if it is private"
        ) from error
    except LocalEntryNotFoundError as error:
        raise BadCheckpoint(
            f"checkpoint {name!r} is not in the Hugging Face cache and can't be fetched now; "
            "check the network, or name a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise BadCheckpoint(f"checkpoint {name!r} can't be fetched from Hugging Face: {error}") from error
