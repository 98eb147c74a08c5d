"""How a LoRA's file is named: a link, or a file on Hugging Face. No I/O.

https://host/path/file.safetensors
https://huggingface.co/owner/name/blob/REVISION/file.safetensors     or /resolve/, /raw/
https://huggingface.co/owner/name, hf.co/owner/name, owner/name      the one .safetensors in it
owner/name/file.safetensors
https://civitai.com/api/download/models/VERSION                      or the page, with ?modelVersionId=VERSION
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from darkroom.errors import InvalidField, LoraNotSafetensors

SUFFIX: Final = ".safetensors"
PICKLES: Final = frozenset((".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"))
"""Suffixes of files that run code when they are opened."""
MAIN: Final = "main"
HUB: Final = "https://huggingface.co"

_HUB_HOSTS: Final = frozenset(("huggingface.co", "www.huggingface.co", "hf.co"))
_CIVITAI: Final = frozenset(("civitai.com", "www.civitai.com"))
_NOT_OWNERS: Final = frozenset(("api", "collections", "datasets", "docs", "models", "papers", "spaces"))
_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9_.-]+")
_REVISION: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./-]*")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMELESS: Final = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(_HUB_HOSTS | _CIVITAI)))})/.*")
_FORMS: Final = "a link to a .safetensors file, owner/name of a Hugging Face repository, or owner/name/file.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file in a repository `owner/name` on Hugging Face; path None: the one .safetensors in it."""

    repository: str
    path: str | None
    revision: str = MAIN

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name if self.path else self.repository

    def link(self, hub: str) -> str:
        """Where the hub at this address has the file."""
        return f"{hub.rstrip('/')}/{self.repository}/resolve/{quote(self.revision, safe='')}/{quote(self.path or '')}"

    def listing(self, hub: str) -> str:
        """Where the hub at this address lists the repository's files."""
        return f"{hub.rstrip('/')}/api/models/{self.repository}/revision/{quote(self.revision, safe='')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    url: str

    @property
    def name(self) -> str:
        """For people: the file's, without what the rest of the link may give away."""
        parts = urlsplit(self.url)
        return unquote(PurePosixPath(parts.path).name) or parts.hostname or self.url


Address = HubFile | Link


def parse_address(text: str, *, field: str, hub: str = HUB) -> Address:
    """hub: Hugging Face or a mirror, whose links are known as such too.

    Raises `InvalidField`, and `LoraNotSafetensors` for what is a pickle by its name.
    """
    text = text.strip()
    if _SCHEMELESS.fullmatch(text):
        text = f"https://{text}"
    if not _SCHEME.match(text):
        return _in_repository([part for part in text.split("/") if part], field=field)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _refusal(field, "it is malformed") from None
    host = parts.netloc.lower()
    segments = [unquote(part) for part in parts.path.split("/") if part]
    if host in _HUB_HOSTS or host == urlsplit(hub).netloc:
        return _on_hub(segments, field=field)
    if host in _CIVITAI and segments[:1] == ["models"]:
        return _on_civitai(parts.query, field=field)
    check_name(segments[-1] if segments else "", field=field)
    return Link(url=text)


def check_name(name: str, *, field: str) -> None:
    """Raises `LoraNotSafetensors` if a file of this name is a pickle."""
    if PurePosixPath(name.lower()).suffix in PICKLES:
        raise LoraNotSafetensors(
            f"{field}: a {PurePosixPath(name).suffix} file can run code when it is opened and is never read here; "
            "use the .safetensors file",
            field=field,
        )


def only_file(files: list[str], *, repository: str, field: str) -> str:
    """The one that is meant by the repository alone. Raises `InvalidField` that lists those there are."""
    found = sorted(file for file in files if file.endswith(SUFFIX))
    if len(found) == 1:
        return found[0]
    if not found:
        raise _refusal(field, f"there is no {SUFFIX} file in {repository}")
    named = ", ".join(f"{repository}/{file}" for file in found)
    raise _refusal(field, f"{repository} has several files; name one: {named}")


def _on_hub(segments: list[str], *, field: str) -> HubFile:
    match segments:
        case [owner, *_] if owner in _NOT_OWNERS:
            raise _refusal(field, "it is no model's repository")
        case [owner, name]:
            return _in_repository([owner, name], field=field)
        case [owner, name, "tree", revision]:
            return _in_repository([owner, name], revision=revision, field=field)
        case [owner, name, "blob" | "resolve" | "raw", revision, *path] if path:
            return _in_repository([owner, name, *path], revision=revision, field=field)
    raise _refusal(field, "it is no link to a file or a repository on Hugging Face")


def _on_civitai(query: str, *, field: str) -> Link:
    match parse_qs(query).get("modelVersionId"):
        case [version] if version.isascii() and version.isdigit():
            return Link(url=f"https://civitai.com/api/download/models/{version}")
    raise _refusal(
        field, "it is a page about a model; use its download link, https://civitai.com/api/download/models/…"
    )


def _in_repository(parts: list[str], *, revision: str = MAIN, field: str) -> HubFile:
    owner, name, *path = parts if len(parts) > 1 else ("", "")
    check_name(parts[-1] if parts else "", field=field)
    if not _OWNER.fullmatch(owner) or not _REPOSITORY.fullmatch(name) or (not path and name.endswith(SUFFIX)):
        raise _refusal(field, f"it is not {_FORMS}")
    if any(part in (".", "..") for part in (name, *path, *revision.split("/"))) or not _REVISION.fullmatch(revision):
        raise _refusal(field, "it names no file that a repository could have")
    if path and not path[-1].endswith(SUFFIX):
        raise _refusal(field, f"{path[-1]} is not a {SUFFIX} file")
    return HubFile(repository=f"{owner}/{name}", path="/".join(path) or None, revision=revision)


def _refusal(field: str, problem: str) -> InvalidField:
    return InvalidField(f"{field}: the LoRA's address can't be used: {problem}", field=field)
