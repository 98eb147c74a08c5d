"""Every code of the table, provoked over HTTP."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from darkroom.api.errors import INTERNAL_ERROR, status_of
from darkroom.api.refusals import WHEN
from darkroom.errors import (
    DarkroomError,
    EngineFailed,
    LoraChanged,
    LoraNotFinite,
    ModelChanged,
    OutOfMemory,
    WorkerLost,
)
from darkroom.job import Failure, State
from darkroom.ledger.outbox import MOST
from darkroom.lora.base import Base
from darkroom.settings import Settings
from hosts import FileHost, file_host
from loras import MODULES
from serving import Gallery, Node, serving

SLUG = "qwen-image-edit-plus"
V1, V2 = f"/v1/{SLUG}", f"/v2/{SLUG}"
MAX_LORA_BYTES = 100_000
QUERY = "transformer_blocks.0.attn.to_q"
SIDE = MODULES.shapes[f"{QUERY}.weight"][0]
A, B = f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight"
LORA: Mapping[str, list[int]] = {A: [2, SIDE], B: [SIDE, 2]}
"""Shapes of a LoRA that the tiny model takes."""


@dataclass(frozen=True, kw_only=True)
class World:
    """client: of a node with an engine. bare: a node without one, with `queue` to speak to it. `params` is a request
    that would be taken."""

    client: httpx.Client
    bare: Node
    queue: httpx.Client
    full: Node
    pictures: Gallery
    files: FileHost
    params: Mapping[str, Any]
    monkeypatch: pytest.MonkeyPatch

    def with_key(self, name: str, **limits: Any) -> httpx.Client:
        return self.bare.client(self.bare.new_key(name, **limits))

    def broken(self) -> None:
        def admit(_: object) -> None:
            raise ZeroDivisionError("internals")

        self.monkeypatch.setattr(self.bare.service._admission, "admit", admit)


def failed(world: World, path: str) -> httpx.Response:
    """The answer to an edit of the picture at this address of the gallery."""
    return world.client.post(V1, json={**world.params, "image": world.pictures.url(path)})


def put_down(world: World, error: DarkroomError) -> httpx.Response:
    """The answer for a job that its worker has put down with this error in each of its attempts."""
    name = {"Idempotency-Key": error.code}
    world.queue.post(V2, json=world.params, headers=name)
    ledger = world.bare.service.ledger
    while ledger.counts()[State.QUEUED]:
        _, lease = ledger.claim("a worker")
        ledger.retry(lease, Failure.of(error))
    return world.queue.post(V1, json=world.params, headers=name)


def cancelled(world: World) -> httpx.Response:
    submitted = world.queue.post(V2, json=world.params).json()
    world.queue.delete(submitted["response_url"])
    return world.queue.get(submitted["response_url"])


def conflicting(world: World) -> httpx.Response:
    name = {"Idempotency-Key": "mine"}
    world.queue.delete(world.queue.post(V2, json=world.params, headers=name).json()["response_url"])
    return world.queue.post(V2, json={**world.params, "seed": 8}, headers=name)


def too_fast(world: World) -> httpx.Response:
    with world.with_key("hasty", rate_per_minute=1) as client:
        client.delete(client.post(V2, json=world.params).json()["response_url"])
        return client.post(V2, json=world.params)


def overdue(world: World) -> httpx.Response:
    answer = world.queue.post(V1, json=world.params)
    world.queue.delete(f"/v2/requests/{answer.headers['x-request-id']}")
    return answer


def upload(world: World) -> str:
    (url,) = world.queue.post("/upload-asset", json={"data_urls": [world.params["image"]]}).json()["file_urls"]
    return url


def gone(world: World) -> httpx.Response:
    url = upload(world)
    for name, _ in world.bare.service.blobs.names("uploads"):
        world.bare.service.blobs.delete(name)
    return httpx.get(url)


def forbidden(world: World) -> httpx.Response:
    with world.with_key("narrow", models=["qwen-image-edit-plus-relight"]) as client:
        return client.post(V2, json=world.params)


def too_poor(world: World) -> httpx.Response:
    with world.with_key("poor", credits=0.001) as client:
        return client.post(V2, json=world.params)


def no_room(world: World) -> httpx.Response:
    with world.full.client(world.full.new_key("test")) as client:
        return client.post(V2, json=world.params)


def too_many_uploads(world: World) -> httpx.Response:
    uploads = world.bare.service._uploads
    world.monkeypatch.setattr(uploads, "_settings", uploads._settings.model_copy(update={"upload_max_bytes": 1}))
    return world.queue.post("/upload-asset", json={"data_urls": [world.params["image"]]})


def too_many_webhooks(world: World) -> httpx.Response:
    webhook = {"webhook_url": "https://shop.example.com/", "event": {"types": ["request.completed"]}}
    with world.with_key("loud") as client:
        return [client.post("/webhook/add", json=webhook) for _ in range(MOST + 1)][-1]


def our_fault(world: World) -> httpx.Response:
    world.broken()
    return world.queue.post(V2, json=world.params)


def without_adapter(world: World) -> httpx.Response:
    params = {"prompt": "x", "image_1": world.params["image"]}
    return world.queue.post(f"{V2}-relight", json=params)


def with_lora(world: World, body: bytes = b"", *, address: str | None = None, **file: Any) -> httpx.Response:
    """The answer to a submit that names this file, or this address."""
    service = world.bare.service
    world.monkeypatch.setattr(service._admission, "_loras", service.loras)
    url = address or world.files.put("lora", body, **file)
    params = {"prompt": "x", "image_1": world.params["image"], "lora_2_url": url}
    return world.queue.post(f"{V2}-multi-lora", json=params)


def in_a_full_store(world: World) -> httpx.Response:
    world.monkeypatch.setattr(world.bare.service.loras.store, "_budget_bytes", 0)
    return with_lora(world, safetensors(), etag=None)


def safetensors(shapes: Mapping[str, list[int]] = LORA, **changed: Any) -> bytes:
    """A file of zeros. changed: in what its header says of the last tensor."""
    header: dict[str, dict[str, Any]] = {}
    begin = 0
    for key, shape in shapes.items():
        end = begin + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    next(reversed(header.values())).update(changed)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(begin)


PROVOKED: Mapping[str, Callable[[World], httpx.Response]] = {
    "malformed_body": lambda w: w.queue.post(V2, content=b'{"prompt": ', headers={"Content-Type": "application/json"}),
    "invalid_field": lambda w: w.queue.post(V2, json={**w.params, "seed": "many"}),
    "unknown_field": lambda w: w.queue.post(V2, json={**w.params, "promt": "x"}),
    "missing_api_key": lambda w: httpx.post(w.bare.url + V2, json=w.params),
    "invalid_api_key": lambda w: httpx.post(w.bare.url + V2, json=w.params, headers={"x-api-key": "dk_wrong"}),
    "model_forbidden": forbidden,
    "invalid_link": lambda w: httpx.get(upload(w).replace("signature=", "signature=0")),
    "not_found": lambda w: w.queue.get("/v3/anything"),
    "unknown_model": lambda w: w.queue.post("/v2/qwen-image-edit-minus", json=w.params),
    "unknown_request": lambda w: w.queue.get("/v2/requests/nobody"),
    "unknown_webhook": lambda w: w.queue.get("/webhook/inactive", params={"webhook_id": "nobody"}),
    "link_expired": gone,
    "method_not_allowed": lambda w: w.queue.put(V2),
    "insufficient_credits": too_poor,
    "invalid_content_type": lambda w: w.queue.post(V2, content=b"x", headers={"Content-Type": "text/plain"}),
    "idempotency_conflict": conflicting,
    "body_too_large": lambda w: w.client.post(V2, json={**w.params, "prompt": "x" * 2_000_000}),
    "uploads_full": too_many_uploads,
    "webhooks_full": too_many_webhooks,
    "invalid_range": lambda w: httpx.get(upload(w), headers={"Range": "bytes=99999999-"}),
    "image_unreachable": lambda w: failed(w, "missing"),
    "image_address_forbidden": lambda w: failed(w, "inside"),
    "image_too_large": lambda w: failed(w, "huge"),
    "image_invalid": lambda w: failed(w, "page"),
    "lora_not_safetensors": lambda w: with_lora(w, b"<html>"),
    "lora_header_invalid": lambda w: with_lora(w, safetensors(dtype="F7")),
    "lora_truncated": lambda w: with_lora(w, safetensors()[:-1]),
    "lora_overlapping": lambda w: with_lora(w, safetensors(data_offsets=[0, 8 * SIDE])),
    "lora_not_lora": lambda w: with_lora(w, safetensors({f"{QUERY}.weight": [SIDE, SIDE]})),
    "lora_wrong_model": lambda w: with_lora(w, safetensors({f"x.{key}": shape for key, shape in LORA.items()})),
    "lora_unsupported": lambda w: with_lora(w, safetensors({**LORA, f"{QUERY}.dora_scale": [SIDE, 1]})),
    "lora_inconsistent": lambda w: with_lora(w, safetensors({A: [2, SIDE]})),
    "lora_rank_invalid": lambda w: with_lora(w, safetensors({A: [0, SIDE], B: [SIDE, 0]})),
    "lora_shape_mismatch": lambda w: with_lora(w, safetensors({A: [2, 7], B: [7, 2]})),
    "lora_not_finite": lambda w: put_down(w, LoraNotFinite("lora: a value is infinite")),
    "lora_unreachable": lambda w: with_lora(w, status=418),
    "lora_not_found": lambda w: with_lora(w, status=404),
    "lora_access_denied": lambda w: with_lora(w, token="secret"),
    "lora_address_forbidden": lambda w: with_lora(w, address="http://127.0.0.1:9/lora"),
    "lora_redirect_forbidden": lambda w: with_lora(w, status=302, headers={"Location": "http://127.0.0.1:9/"}),
    "lora_too_large": lambda w: with_lora(w, safetensors() + bytes(MAX_LORA_BYTES)),
    "lora_changed": lambda w: put_down(w, LoraChanged("lora: another file now")),
    "lora_no_room": in_a_full_store,
    "cancelled": cancelled,
    "model_changed": lambda w: put_down(w, ModelChanged("Another model now")),
    "out_of_memory": lambda w: put_down(w, OutOfMemory("The device is too small")),
    "engine_failed": lambda w: put_down(w, EngineFailed("The engine failed")),
    "worker_lost": lambda w: put_down(w, WorkerLost("The worker was lost")),
    "rate_limited": too_fast,
    "adapter_unavailable": without_adapter,
    "storage_full": no_room,
    "still_running": overdue,
    INTERNAL_ERROR: our_fault,
}

STATUSES = {error.code: status_of(error.__new__(error)) for error in WHEN} | {
    INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR
}
HEADERS = {401: {"www-authenticate"}, 405: {"allow"}, 416: {"content-range"}, 429: {"retry-after"}}
COUNTERS = {"x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset-at-utc"}


@pytest.fixture(scope="module")
def files() -> Iterator[FileHost]:
    with file_host() as server:
        yield server


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, files: FileHost, tiny_checkpoint: Path) -> Iterator[Node]:
    """A service without an engine: its jobs are the tests' own to claim. It knows what the tiny model's LoRAs are."""
    settings = Settings(
        data=tmp_path_factory.mktemp("bare"),
        checkpoint="/nowhere",
        v1_wait_s=0.05,
        fetch_allow=(files.address,),
        lora_max_bytes=MAX_LORA_BYTES,
    )
    with serving(settings) as running:
        running.service.loras.remote._check = Base(str(tiny_checkpoint)).check
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A service whose disk has less room than it wants to keep free."""
    settings = Settings(data=tmp_path_factory.mktemp("full"), checkpoint="/nowhere", min_free_bytes=2**60)
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def bare_client(bare: Node) -> Iterator[httpx.Client]:
    with bare.client(bare.new_key("test")) as client:
        yield client


@pytest.fixture
def world(
    client: httpx.Client,
    bare: Node,
    bare_client: httpx.Client,
    full: Node,
    pictures: Gallery,
    files: FileHost,
    params: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    return World(
        client=client,
        bare=bare,
        queue=bare_client,
        full=full,
        pictures=pictures,
        files=files,
        params=params,
        monkeypatch=monkeypatch,
    )


def test_the_table_is_whole() -> None:
    """Every documented code is provoked here, and nothing else."""
    assert PROVOKED.keys() == STATUSES.keys()


@pytest.mark.parametrize("code", PROVOKED)
def test_a_code(world: World, code: str) -> None:
    """It comes under its status with the one body, the request's id, and what headers its status has."""
    answer = PROVOKED[code](world)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (STATUSES[code], code), body
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(body["error"], str)
    assert body["error"]
    optional = {"field", "status", "metrics"} if code == "cancelled" else {"field"}
    assert {"error", "code", "request_id"} <= body.keys() <= {"error", "code", "request_id"} | optional
    if code != "cancelled":
        assert body["request_id"] == answer.headers["x-request-id"]
    assert HEADERS.get(answer.status_code, set()) <= answer.headers.keys()
    assert answer.status_code != HTTPStatus.TOO_MANY_REQUESTS or answer.headers.keys() >= COUNTERS
    for inside in ("Traceback", "internals", "darkroom.", str(Path(__file__).parents[2])):
        assert inside not in answer.text
