"""Every answer that the document has is one that the server gives, in the documented shape.

`PROVOCATIONS` has one way to each status of each operation; of the models one stands for all, since the others document
the same.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from darkroom.api import docs
from darkroom.api.openapi import openapi
from darkroom.catalogue import read_catalogue
from darkroom.errors import StorageFull, WorkerLost
from darkroom.job import Failure, State
from darkroom.ledger.outbox import MOST
from darkroom.settings import Settings
from document import Document
from serving import Gallery, Node, run, submit_running

DOCUMENT = Document(openapi(read_catalogue(), Settings()))
V1, V2 = "/v1/qwen-image-edit-plus", "/v2/qwen-image-edit-plus"
V1_ID, V2_ID = "edit_qwen_image_edit_plus", "submit_qwen_image_edit_plus"
LEAST = {"prompt": "x", "num_inference_steps": 1, "guidance_scale": 1}
HISTORY = "/inference-request"
UNKNOWN = "0" * 32
WEBHOOK = {"webhook_url": "https://shop.example.com/", "event": {"types": ["request.failed"]}}


@dataclass(frozen=True, kw_only=True)
class World:
    """What a provocation has to hand: a node with an engine and one without, and a client of each."""

    node: Node
    idle: Node
    client: httpx.Client
    queue: httpx.Client
    pictures: Gallery
    params: dict[str, Any]
    patch: pytest.MonkeyPatch

    def stranger(self, **limits: Any) -> httpx.Client:
        return self.idle.client(self.idle.new_key(f"documented {id(limits)}", **limits))

    def link(self) -> str:
        """A result's."""
        return self.client.get(run(self.client, self.params)["response_url"]).json()["output"]

    def uploaded(self) -> str:
        answer = self.client.post("/upload-asset", json={"data_urls": [self.params["image"]]})
        return answer.json()["file_urls"][0]

    def break_(self, owner: Any, name: str, error: Exception | None = None) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error or ZeroDivisionError("internals")

        self.patch.setattr(owner, name, broken)


@pytest.fixture
def world(node, idle, client, queue, pictures, params, monkeypatch) -> Iterator[World]:
    params = params | LEAST
    yield World(node=node, idle=idle, client=client, queue=queue, pictures=pictures, params=params, patch=monkeypatch)
    pictures.open_gate.set()


Provocation = Callable[[World], httpx.Response]


def of_a_submit(path: str) -> dict[int, Provocation]:
    def conflict(w: World) -> httpx.Response:
        name = {"Idempotency-Key": f"documented {path}"}
        w.queue.post(V2, json=w.params, headers=name)
        return w.queue.post(path, json=w.params | {"seed": 8}, headers=name)

    def hasty(w: World) -> httpx.Response:
        with w.stranger(rate_per_minute=1) as hasty:
            assert hasty.post(V2, json=w.params).status_code == 200
            return hasty.post(path, json=w.params)

    def full(w: World) -> httpx.Response:
        w.break_(w.idle.service._admission, "admit", StorageFull("full"))
        return w.queue.post(path, json=w.params)

    def other_model(w: World) -> httpx.Response:
        with w.stranger(models=["qwen-image-edit-plus-relight"]) as other:
            return other.post(path, json=w.params)

    def poor(w: World) -> httpx.Response:
        with w.stranger(credits=0) as poor:
            return poor.post(path, json=w.params)

    return {
        400: lambda w: w.queue.post(path, json=w.params | {"promt": "x"}),
        401: lambda w: httpx.post(w.idle.url + path),
        403: other_model,
        406: poor,
        409: conflict,
        413: lambda w: w.client.post(path, json={"prompt": "x" * w.node.service.settings.max_body_bytes}),
        429: hasty,
        500: lambda w: w.break_(w.idle.service._admission, "admit") or w.queue.post(path, json=w.params),
        503: full,
    }


def of_a_request(template: str, method: str = "GET") -> dict[int, Provocation]:
    def ask(client: httpx.Client, request_id: str) -> httpx.Response:
        return client.request(method, template.format(request_id))

    def completed(w: World) -> httpx.Response:
        return ask(w.client, run(w.client, w.params)["request_id"])

    def failed(w: World) -> httpx.Response:
        return ask(w.client, run(w.client, w.params | {"image": w.pictures.url("missing")})["request_id"])

    def broken(w: World) -> httpx.Response:
        w.break_(w.idle.service, "job")
        return ask(w.queue, UNKNOWN)

    common: dict[int, Provocation] = {
        401: lambda w: httpx.request(method, w.idle.url + template.format(UNKNOWN)),
        404: lambda w: ask(w.queue, UNKNOWN),
        500: broken,
        200: completed,
    }
    return common | ({202: running} if method == "DELETE" else {422: failed})


def running(w: World) -> httpx.Response:
    return w.client.delete(submit_running(w.client, w.params)["response_url"])


def of_a_link(kind: str, method: str) -> dict[int, Provocation]:
    def ask(w: World, change: Callable[[str], str] = str, **headers: str) -> httpx.Response:
        link = w.link() if kind == "result" else w.uploaded()
        return httpx.request(method, change(link), headers=headers)

    def known(w: World) -> httpx.Response:
        link = w.link() if kind == "result" else w.uploaded()
        etag = httpx.get(link).headers["etag"]
        return httpx.request(method, link, headers={"If-None-Match": etag})

    def gone(w: World) -> httpx.Response:
        w.break_(w.node.service.blobs, "path", FileNotFoundError())
        return ask(w)

    def broken(w: World) -> httpx.Response:
        link = w.link() if kind == "result" else w.uploaded()
        w.break_(w.node.service.links, "check")
        return httpx.request(method, link)

    return {
        200: ask,
        206: lambda w: ask(w, range="bytes=0-9"),
        304: known,
        403: lambda w: ask(w, lambda link: link + "0"),
        404: gone,
        416: lambda w: ask(w, range="bytes=99999999-"),
        500: broken,
    }


def of_an_upload() -> dict[int, Provocation]:
    path = "/upload-asset"

    def broken(w: World, error: Exception | None = None) -> httpx.Response:
        w.break_(w.idle.service, "upload", error)
        return w.queue.post(path, json={"data_urls": [w.params["image"]]})

    return {
        200: lambda w: w.queue.post(path, json={"data_urls": [w.params["image"]]}),
        400: lambda w: w.queue.post(path, json={"data_urls": []}),
        401: lambda w: httpx.post(w.idle.url + path),
        406: lambda w: w.queue.post(path, data={"data_urls": "x"}),
        413: lambda w: w.client.post(path, json={"data_urls": ["x" * w.node.service.settings.max_body_bytes]}),
        500: broken,
        503: lambda w: broken(w, StorageFull("full")),
    }


def of_the_account(path: str) -> dict[int, Provocation]:
    return {
        200: lambda w: w.queue.get(path),
        401: lambda w: httpx.get(w.idle.url + path),
        500: lambda w: w.break_(w.idle.service, "key") or w.queue.get(path),
    }


def of_the_history(path: str) -> dict[int, Provocation]:
    def made(w: World) -> httpx.Response:
        run(w.client, w.params)
        return w.client.get(path)

    return {
        200: made,
        400: lambda w: w.queue.get(path, params={"model_name": "x", "page": 0}),
        401: lambda w: httpx.get(w.idle.url + path),
        500: lambda w: w.break_(w.idle.service, "history") or w.queue.get(path),
    }


def of_a_webhook(way: str, shape: Mapping[str, Any]) -> dict[int, Provocation]:
    """shape: what is sent, in the body if it has an address, else in the query; its webhook_id is put in."""
    path, sends = f"/webhook/{way}", WEBHOOK.keys() <= shape.keys()

    def ask(client: httpx.Client, *, webhook_id: str = UNKNOWN, **more: Any) -> httpx.Response:
        params = {name: webhook_id if name == "webhook_id" else value for name, value in shape.items()} | more
        return client.post(path, json=params) if sends else client.get(path, params=params or None)

    def known(w: World) -> httpx.Response:
        added = w.queue.post("/webhook/add", json=WEBHOOK).json()["webhook"]["webhook_id"]
        try:
            return ask(w.queue, webhook_id=added)
        finally:
            w.queue.get("/webhook/inactive", params={"webhook_id": added})

    def broken(w: World) -> httpx.Response:
        for name in ("add", "update", "end", "webhooks", "deliveries"):
            w.break_(w.idle.service.ledger.outbox, name)
        return ask(w.queue)

    def full(w: World) -> httpx.Response:
        with w.stranger() as stranger:
            return [ask(stranger) for _ in range(MOST + 1)][-1]

    with_body: dict[int, Provocation] = {
        406: lambda w: w.queue.post(path, data={"webhook_url": "x"}),
        413: lambda w: w.client.post(path, json={"webhook_url": "x" * w.node.service.settings.max_body_bytes}),
    }
    return {
        200: known,
        **({400: lambda w: ask(w.queue, webhook="x")} if shape else {}),
        401: lambda w: httpx.request("POST" if sends else "GET", w.idle.url + path),
        **({404: lambda w: ask(w.queue)} if "webhook_id" in shape else {}),
        **({409: full} if way == "add" else {}),
        **(with_body if sends else {}),
        500: broken,
    }


def uncounted(w: World) -> httpx.Response:
    w.break_(w.idle.service.ledger, "counts")
    return w.queue.get("/health/ready")


def of_the_page(path: str, part: str) -> dict[int, Provocation]:
    return {
        200: lambda w: w.queue.get(path),
        500: lambda w: w.break_(docs, part) or w.queue.get(path),
    }


def failed_job(w: World) -> httpx.Response:
    return w.client.post(V1, json=w.params | {"image": w.pictures.url("missing")})


def lost_job(w: World) -> httpx.Response:
    """Asked for again, by its name, after it has lost three workers."""
    name = {"Idempotency-Key": "documented lost"}
    lost = w.queue.post(V2, json=w.params, headers=name).json()["request_id"]
    ledger = w.idle.service.ledger
    while ledger.job(lost).state != State.FAILED:
        _, lease = ledger.claim("a worker")
        ledger.retry(lease, Failure.of(WorkerLost("The worker was lost")))
    return w.queue.post(V1, json=w.params, headers=name)


PROVOCATIONS: dict[str, dict[int, Provocation]] = {
    V1_ID: {
        **of_a_submit(V1),
        200: lambda w: w.client.post(V1, json=w.params),
        422: failed_job,
        502: lost_job,
        504: lambda w: w.queue.post(V1, json=w.params),
    },
    V2_ID: {**of_a_submit(V2), 200: lambda w: w.queue.post(V2, json=w.params)},
    "get_result": of_a_request("/v2/requests/{}"),
    "get_status": of_a_request("/v2/requests/{}/status"),
    "watch": {status: way for status, way in of_a_request("/v2/requests/{}/events").items() if status != 422},
    "poll": of_a_request("/v1/requests/{}"),
    "cancel": of_a_request("/v2/requests/{}", "DELETE"),
    "list_recent_generations": of_the_history(f"{HISTORY}/recent-generations?model_name=qwen-image-edit-plus"),
    "list_generations": of_the_history(f"{HISTORY}/generations"),
    "list_requests": of_the_history(f"{HISTORY}/request-history"),
    "get_request": {
        status: way for status, way in of_a_request(f"{HISTORY}/request-history/{{}}").items() if status != 422
    },
    "list_webhooks": of_a_webhook("get", {}),
    "add_webhook": of_a_webhook("add", WEBHOOK),
    "update_webhook": of_a_webhook("update", {"webhook_id": "", **WEBHOOK}),
    "end_webhook": of_a_webhook("inactive", {"webhook_id": ""}),
    "list_dispatches": of_a_webhook("dispatch-logs", {"webhook_id": ""}),
    "get_result_file": of_a_link("result", "GET"),
    "head_result_file": of_a_link("result", "HEAD"),
    "get_upload_file": of_a_link("upload", "GET"),
    "head_upload_file": of_a_link("upload", "HEAD"),
    "upload": of_an_upload(),
    "get_credits": of_the_account("/v1/get-user-credits"),
    "authenticate": of_the_account("/api/auth/authenticate"),
    "list_models": of_the_account("/inference-model-information/list"),
    "list_loras": of_the_account("/v2/loras"),
    "get_live": {200: lambda w: w.queue.get("/health/live")},
    "get_ready": {
        200: lambda w: w.client.get("/health/ready"),
        500: uncounted,
        503: lambda w: w.queue.get("/health/ready"),
    },
    "get_openapi": of_the_page("/openapi.json", "JSONResponse"),
    "get_docs": {200: lambda w: w.queue.get("/docs")},
    "get_docs_asset": of_the_page("/docs/swagger-ui.css", "files") | {404: lambda w: w.queue.get("/docs/other.js")},
}


def test_every_documented_status_is_provoked() -> None:
    """The table above and the document have the same operations and statuses."""
    documented = {
        name: {int(status) for status in operation["responses"]}
        for name, (_, path, operation) in DOCUMENT.operations().items()
        if path in (V1, V2) or "qwen" not in path
    }
    assert {name: {*ways} for name, ways in PROVOCATIONS.items()} == documented


def test_all_models_answer_alike() -> None:
    """What is documented for one model is for all of them."""
    paths = DOCUMENT.document["paths"]
    for path, item in paths.items():
        if "qwen" in path:
            assert item["post"]["responses"] == paths[path[:3] + "/qwen-image-edit-plus"]["post"]["responses"]


@pytest.mark.parametrize(
    ("operation_id", "status"), [(name, status) for name, ways in PROVOCATIONS.items() for status in ways]
)
def test_it_is_answered_as_documented(world: World, operation_id: str, status: int) -> None:
    """Status, headers, media type and a body without anything that is not in the document."""
    answer = PROVOCATIONS[operation_id][status](world)
    assert answer.status_code == status, answer.text
    DOCUMENT.hold(operation_id, answer)


def test_a_picture_in_json_is_as_documented(world: World) -> None:
    """v1's other 200."""
    DOCUMENT.hold(V1_ID, world.client.post(V1, json=world.params | {"base64": True}))


def test_a_result_with_its_picture_is_as_documented(world: World) -> None:
    """The keys that `base64` adds."""
    submitted = run(world.client, world.params | {"base64": True})
    DOCUMENT.hold("get_result", world.client.get(submitted["response_url"]))


@pytest.mark.parametrize(("operation_id", "suffix"), [("get_result", ""), ("get_status", "/status")])
def test_a_waiting_request_is_as_documented(world: World, operation_id: str, suffix: str) -> None:
    """The other 200 of result and status; cancelled, the other of cancel."""
    url = world.queue.post(V2, json=world.params).json()["response_url"]
    DOCUMENT.hold(operation_id, world.queue.get(url + suffix))
    DOCUMENT.hold("cancel", world.queue.delete(url))


def test_a_row_of_each_status_is_as_documented(world: World) -> None:
    """Completed is the one above; these are a failed and a waiting one, by themselves and on their page."""
    failed = run(world.client, world.params | {"image": world.pictures.url("missing")})["request_id"]
    waiting = world.queue.post(V2, json=world.params).json()["request_id"]
    for client, request_id in ((world.client, failed), (world.queue, waiting)):
        DOCUMENT.hold("get_request", client.get(f"{HISTORY}/request-history/{request_id}"))
        DOCUMENT.hold("list_requests", client.get(f"{HISTORY}/request-history"))


def test_a_refused_method_and_path_are_as_documented(world: World) -> None:
    """405 and 404 belong to no operation, and have their place in the document all the same."""
    responses = DOCUMENT.document["components"]["responses"]
    for answer, name in (
        (world.queue.put(V1), "MethodNotAllowed"),
        (world.queue.get("/nowhere"), "UnknownPath"),
        (world.queue.post("/v1/nobody", json={}), "UnknownModel"),
    ):
        DOCUMENT.check(responses[name]["content"]["application/json"]["schema"], answer.json())
        assert responses[name]["headers"].keys() <= {*answer.headers}
