"""Signed links to results: whoever holds one may read that picture until it expires, without a key."""

import contextlib
import hashlib
import hmac
import math
import os
import secrets
from pathlib import Path
from urllib.parse import quote, urlencode

from darkroom.errors import BadSetting, LinkExpired, LinkInvalid

SECRET_BYTES = 32


class Links:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def path(self, job_id: str, file: str, *, expires_at: float) -> str:
        """The path and query of the link; the same arguments always give the same one."""
        expires = str(math.ceil(expires_at))
        query = urlencode({"expires": expires, "signature": self._signature(job_id, file, expires)})
        return f"/files/{quote(job_id, safe='')}/{quote(file, safe='')}?{query}"

    def check(self, job_id: str, file: str, *, expires: str, signature: str, now: float) -> None:
        """Raises `LinkInvalid` for a link that `path` did not make, `LinkExpired` for one past its time."""
        expected = self._signature(job_id, file, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise LinkInvalid("this link was not signed by this server; take `output` from the request's answer")
        if now >= int(expires):
            raise LinkExpired("this link has expired: a result is kept for a limited time after its request has ended")

    def _signature(self, job_id: str, file: str, expires: str) -> str:
        # What is signed has no newline in it, so nothing else joins to the same message.
        message = f"{job_id}\n{file}\n{expires}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


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
    finally:
        draft.unlink()
