"""What a node keeps on disk: the only place that knows which ledger and which blob store stand behind the contracts."""

from tempfile import TemporaryFile

from darkroom.blobs.folder import Folder
from darkroom.errors import BadSetting
from darkroom.fetch.transport import Transport
from darkroom.ledger.contract import Ledger
from darkroom.ledger.scheduler import Affinity
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.links import Links, read_secret
from darkroom.lora.base import Base
from darkroom.lora.index import Index
from darkroom.lora.library import Library
from darkroom.lora.presets import read_presets
from darkroom.lora.remote import Remote
from darkroom.lora.store import Store
from darkroom.settings import Settings

GB = 10**9


def open_ledger(settings: Settings) -> Ledger:
    """Raises `BadSetting`."""
    _make_data(settings)
    return SqliteLedger(
        settings.data / "ledger.db",
        lease_s=settings.lease_s,
        retention_s=settings.retention_s,
        affinity=Affinity(slack=settings.affinity_slack, most_overtaken=settings.most_overtaken),
    )


def open_blobs(settings: Settings) -> Folder:
    """Raises `BadSetting`."""
    _make_data(settings)
    return Folder(settings.data / "blobs")


def open_links(settings: Settings) -> Links:
    """Raises `BadSetting`."""
    _make_data(settings)
    return Links(read_secret(settings.data / "secret"))


def open_loras(settings: Settings) -> Library:
    """Raises `BadSetting`."""
    _make_data(settings)
    root = settings.loras or settings.data / "loras"
    base = Base(settings.checkpoint)
    tokens = dict(entry.split("=", 1) for entry in settings.lora_tokens)
    try:
        return Library(
            store=Store(root, budget_bytes=int(settings.loras_gb * GB), reserve_bytes=settings.min_free_bytes),
            index=Index(Folder(root / "index")),
            remote=Remote(
                transport=Transport(allow=settings.fetch_allow, tokens=tokens),
                hub=settings.hub_url,
                max_bytes=settings.lora_max_bytes,
                check=base.check,
            ),
            base=base,
            presets=read_presets(settings.lora_presets),
            fetch_allow=settings.fetch_allow,
        )
    except OSError as error:
        raise BadSetting(f"DARKROOM_LORAS = {str(root)!r}: can't be made: {error.strerror}") from error


def check_data(settings: Settings) -> None:
    """Make the data folder if there is none, and write into it: before anything slow begins. Raises `BadSetting` if
    that can't be done."""
    _make_data(settings)
    try:
        with TemporaryFile(dir=settings.data):
            pass
    except OSError as error:
        raise BadSetting(f"DARKROOM_DATA = {str(settings.data)!r}: can't be written to: {error.strerror}") from error


def _make_data(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSetting(f"DARKROOM_DATA = {str(settings.data)!r}: can't be made: {error.strerror}") from error
