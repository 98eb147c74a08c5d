"""What a node keeps on disk: the only place that knows which ledger and which blob store stand behind the contracts."""

from darkroom.blobs.folder import Folder
from darkroom.errors import BadSetting
from darkroom.ledger.contract import Ledger
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.links import Links, read_secret
from darkroom.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """Raises `BadSetting`."""
    _make_data(settings)
    return SqliteLedger(settings.data / "ledger.db", lease_s=settings.lease_s, retention_s=settings.retention_s)


def open_blobs(settings: Settings) -> Folder:
    """Raises `BadSetting`."""
    _make_data(settings)
    return Folder(settings.data / "blobs")


def open_links(settings: Settings) -> Links:
    """Raises `BadSetting`."""
    _make_data(settings)
    return Links(read_secret(settings.data / "secret"))


def _make_data(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSetting(f"DARKROOM_DATA = {str(settings.data)!r}: can't be made: {error.strerror}") from error
