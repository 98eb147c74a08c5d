"""Where a node is put together from its parts."""

from darkroom.admission import Admission
from darkroom.catalogue import read_catalogue
from darkroom.service import Service
from darkroom.settings import Settings
from darkroom.stores import open_blobs, open_ledger, open_links, open_loras
from darkroom.sweep import Sweeper
from darkroom.uploads import Uploads

SWEEPS_A_LEASE = 3
SWEEP_S = 10
"""Seconds between sweeps, unless leases are shorter than is usual."""


def build_service(settings: Settings) -> Service:
    """A node on this machine's disk. Raises `SetupError`."""
    catalogue = read_catalogue()
    ledger = open_ledger(settings)
    blobs = open_blobs(settings)
    links = open_links(settings)
    loras = open_loras(settings)
    return Service(
        settings=settings,
        catalogue=catalogue,
        ledger=ledger,
        blobs=blobs,
        links=links,
        loras=loras,
        admission=Admission(
            catalogue=catalogue, ledger=ledger, blobs=blobs, links=links, loras=loras, settings=settings
        ),
        uploads=Uploads(blobs=blobs, settings=settings),
        sweeper=Sweeper(ledger=ledger, blobs=blobs, interval_s=min(SWEEP_S, settings.lease_s / SWEEPS_A_LEASE)),
    )
