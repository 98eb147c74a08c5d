"""Where things are put together: the only place that knows which ledger and blob store stand behind the contracts."""

from collections.abc import Sequence

from darkroom.admission import Admission
from darkroom.blobs.folder import Folder
from darkroom.catalogue import read_catalogue
from darkroom.errors import BadSetting
from darkroom.fetch.guard import Fetcher
from darkroom.job import MICRO
from darkroom.keys import digest, new_secret
from darkroom.ledger.contract import Key, Ledger
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.picture import Limits
from darkroom.service import Service
from darkroom.settings import Settings
from darkroom.sweep import Sweeper

SWEEPS_A_LEASE = 3
SWEEP_S = 10
"""Seconds between sweeps, unless leases are shorter than is usual."""


def build_service(settings: Settings) -> Service:
    """A node on this machine's disk. Raises `SetupError`."""
    catalogue = read_catalogue()
    ledger = open_ledger(settings)
    blobs = open_blobs(settings)
    return Service(
        settings=settings,
        catalogue=catalogue,
        ledger=ledger,
        blobs=blobs,
        admission=Admission(catalogue=catalogue, ledger=ledger, blobs=blobs, settings=settings),
        sweeper=Sweeper(ledger=ledger, blobs=blobs, interval_s=min(SWEEP_S, settings.lease_s / SWEEPS_A_LEASE)),
    )


def open_ledger(settings: Settings) -> Ledger:
    _make_data(settings)
    return SqliteLedger(settings.data / "ledger.db", lease_s=settings.lease_s, retention_s=settings.retention_s)


def open_blobs(settings: Settings) -> Folder:
    _make_data(settings)
    return Folder(settings.data / "blobs")


def open_fetcher(settings: Settings) -> Fetcher:
    return Fetcher(allow=settings.fetch_allow, max_bytes=settings.max_picture_bytes)


def picture_limits(settings: Settings) -> Limits:
    return Limits(max_bytes=settings.max_picture_bytes, max_px=settings.max_picture_px)


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


def _make_data(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSetting(f"DARKROOM_DATA = {str(settings.data)!r}: can't be made: {error.strerror}") from error
