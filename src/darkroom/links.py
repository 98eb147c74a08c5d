"""Signed links to kept pictures: whoever holds one may use that picture until it expires, without a key."""

import contextlib
import hashlib
import hmac
import math
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from darkroom.disk import sync
from darkroom.errors import BadSetting, LinkExpired, LinkInvalid

SECRET_BYTES = 32

FILES = "files"
UPLOADS = "uploads"
"""Kinds of kept pictures: a job's result, whose owner is the job; a key's upload, whose owner is the key."""

_PARTS = 3


class Links:
    """A link's path has three parts: the kind of picture, whose it is, and the file's name."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def path(self, kind: str, owner: str, file: str, *, expires_at: float) -> str:
        """The path and query of the link; the same arguments always give the same one."""
        path, expires = _path(kind, owner, file), str(math.ceil(expires_at))
        return f"{path}?{urlencode({'expires': expires, 'signature': self._signature(path, expires)})}"

    def check(self, kind: str, owner: str, file: str, *, expires: str, signature: str, now: float) -> None:
        """Raises `LinkInvalid` for a link that `path` did not make, `LinkExpired` for one past its time."""
        if not self._signed(_path(kind, owner, file), expires, signature):
            raise LinkInvalid("this link was not signed by this server; take it whole, as the server's answer has it")
        if now >= int(expires):
            raise LinkExpired("this link has expired: pictures are kept for a limited time")

    def find(self, url: str) -> tuple[str, str, str, int] | None:
        """Kind, owner, file and expiry (seconds since the epoch) of a link of this server's; None for any other URL.

        The signature says whose link it is. The host does not, since a server has as many names as there are proxies
        before it, and whatever stands before the path may be a proxy's prefix.
        """
        try:
            split = urlsplit(url)
            query = parse_qs(split.query, max_num_fields=2)
            (expires,), (signature,) = query["expires"], query["signature"]
        except (KeyError, ValueError):
            return None
        parts = split.path.split("/")[-_PARTS:]
        if len(parts) < _PARTS or not self._signed("/" + "/".join(parts), expires, signature):
            return None
        kind, owner, file = map(unquote, parts)
        return kind, owner, file, int(expires)

    def _signed(self, path: str, expires: str, signature: str) -> bool:
        return hmac.compare_digest(self._signature(path, expires).encode(), signature.encode(errors="surrogatepass"))

    def _signature(self, path: str, expires: str) -> str:
        # A quoted path has no newline in it, so nothing else joins to the same message.
        message = f"{path}\n{expires}".encode(errors="surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='', errors='surrogatepass')}" for part in parts)


def read_secret(path: Path) -> bytes:
    """The secret kept at `path`; made there, readable by its owner only, if there is none.

    However many processes start at once, all of them return the same one. Raises `BadSetting` if the file holds
    something else.
    """
    if not path.exists():
        _create(path)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise BadSetting(f"{path} should hold {SECRET_BYTES} bytes and holds {len(secret)}: delete it to get a new one")
    return secret


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A hard link, unlike a rename, leaves a file that another process has put there first.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        sync(path.parent)
    finally:
        draft.unlink()
