"""API keys' secrets. The ledger keeps only their digest."""

import hashlib
import secrets
from collections.abc import Sequence

from darkroom.job import MICRO
from darkroom.ledger.contract import Key, Ledger


def new_secret() -> str:
    """A fresh secret with 240 bits of entropy; shown once, to whoever creates the key."""
    return "dk_" + secrets.token_urlsafe(30)


def digest(secret: str) -> str:
    """What is stored and looked up. A plain SHA-256 is enough: the secret is not guessable."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    ledger: Ledger,
    *,
    name: str,
    credits: float,  # noqa: A002  what they are called everywhere else
    rate_per_minute: int | None = None,
    models: Sequence[str] | None = None,
) -> tuple[str, Key]:
    """A new key and its secret, which is nowhere else. Raises `BadSetting` if a live key has this name."""
    secret = new_secret()
    key = ledger.create_key(
        name=name,
        digest=digest(secret),
        granted_micro=round(credits * MICRO),
        rate_per_minute=rate_per_minute,
        models=models,
    )
    return secret, key
