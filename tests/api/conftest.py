from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from darkroom.settings import Settings
from serving import PATIENCE_S, Gallery, Mailbox, Node, gallery, mailbox, picture, serving

MAX_BODY_BYTES = 1_000_000
MAX_PICTURE_PX = 4_000_000


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Structlog's own default draws every frame with its variables, which takes seconds."""
    before = structlog.get_config()
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before["processors"][:-1], renderer])
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def pictures() -> Iterator[Gallery]:
    with gallery() as server:
        yield server


@pytest.fixture(scope="session")
def receiver() -> Iterator[Mailbox]:
    with mailbox() as server:
        yield server


@pytest.fixture(scope="session")
def node(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, pictures: Gallery, receiver: Mailbox
) -> Iterator[Node]:
    """A service with its engine, for all the tests."""
    settings = Settings(
        data=tmp_path_factory.mktemp("node"),
        checkpoint=str(tiny_checkpoint),
        device="cpu",
        dtype="float32",
        fetch_allow=(pictures.address, receiver.address),
        max_body_bytes=MAX_BODY_BYTES,
        max_picture_px=MAX_PICTURE_PX,
        v1_wait_s=PATIENCE_S,
    )
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A service whose engine can't be set up: what it accepts stays QUEUED."""
    settings = Settings(data=tmp_path_factory.mktemp("idle"), checkpoint="/nowhere", v1_wait_s=0.1)
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def secret(node: Node) -> str:
    return node.new_key("test")


@pytest.fixture(scope="session")
def client(node: Node, secret: str) -> Iterator[httpx.Client]:
    with node.client(secret) as client:
        yield client


@pytest.fixture
def fresh(node: Node, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A key of its own, at a service with an engine."""
    with node.client(node.new_key(request.node.name)) as client:
        yield client


@pytest.fixture(scope="session")
def queue(idle: Node) -> Iterator[httpx.Client]:
    with idle.client(idle.new_key("test")) as client:
        yield client


@pytest.fixture(scope="session")
def photo() -> str:
    """A picture as a data URL."""
    return "data:image/png;base64," + b64encode(picture()).decode()


@pytest.fixture
def params(photo: str) -> dict[str, Any]:
    """A request that costs the tiny engine next to nothing."""
    return {"image": photo, "prompt": "turn it blue", "seed": 7, "num_inference_steps": 1, "guidance_scale": 1}
