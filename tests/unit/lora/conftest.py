from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.lora import remote
from darkroom.lora.library import Library
from darkroom.settings import Settings
from darkroom.stores import open_loras
from hosts import FileHost, file_host


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, host: FileHost) -> Settings:
    return Settings(
        data=tmp_path / "data",
        fetch_allow=(host.address, host.hub_address),
        hub_url=host.hub,
        lora_max_bytes=10**6,
        loras_gb=0.003,
        min_free_bytes=0,
    )


@pytest.fixture
def library(settings: Settings) -> Library:
    return open_loras(settings)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BACKOFF_S", (0.001, 0.001))
