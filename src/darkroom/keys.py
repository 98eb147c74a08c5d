"""API keys' secrets. The ledger keeps only their digest."""

import hashlib
import secrets


def new_secret() -> str:
    """A fresh secret with 240 bits of entropy; shown once, to whoever creates the key."""
    return "dk_" + secrets.token_urlsafe(30)


def digest(secret: str) -> str:
    """What is stored and looked up. A plain SHA-256 is enough: the secret is not guessable."""
    return hashlib.sha256(secret.encode()).hexdigest()
