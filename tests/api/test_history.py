"""What a key has asked for before, over plain HTTP."""

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from darkroom.job import Failure, Result
from serving import Gallery, Node, hang_up, run

SLUG = "qwen-image-edit-plus"
RECENT, GENERATIONS, REQUESTS = (
    f"/inference-request/{name}" for name in ("recent-generations", "generations", "request-history")
)
PAGES = (f"{RECENT}?model_name={SLUG}", GENERATIONS, REQUESTS)
RESULT = Result(
    blob="results/2026112904/none", content_type="image/webp", size_bytes=1, width_px=8, height_px=8, timings_s={"a": 1}
)


@pytest.fixture
def waiting(idle: Node, request: pytest.FixtureRequest):
    """A key of its own, at a service where all it submits stays queued."""
    with idle.client(idle.new_key(request.node.name)) as client:
        yield client


def rows(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = client.get(path, params=params or None)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def ids(client: httpx.Client, path: str, **params: Any) -> list[str]:
    return [row["request_id"] for row in rows(client, path, **params)]


def submit(client: httpx.Client, params: dict[str, Any], slug: str = SLUG) -> str:
    answer = client.post(f"/v2/{slug}", json=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["request_id"]


def refused(answer: httpx.Response, field: str, code: str = "invalid_field") -> str:
    body = answer.json()
    assert (answer.status_code, body["code"], body["field"]) == (400, code, field), body
    return body["error"]


def test_a_request_that_has_given_a_picture(fresh: httpx.Client, params) -> None:
    """Its row says what was asked and what came of it, as the other calls do, and its link needs no key."""
    submitted = run(fresh, params | {"image_format": "png", "aspect_ratio": "4:3"})
    result = fresh.get(submitted["response_url"]).json()
    (row,) = rows(fresh, REQUESTS)
    times = [datetime.fromisoformat(row.pop(name)) for name in ("model_created", "model_ended", "expires_at")]
    assert times[0] <= times[1] == times[2] - timedelta(hours=1)
    assert row.pop("latency_ms") == round(result["metrics"]["total_time"] * 1000)
    assert row == {
        "request_id": submitted["request_id"],
        "model_name": SLUG,
        "model_status": "COMPLETED",
        "credits_deduction": result["metrics"]["cost"],
        "request_body": {
            "image": "inline",
            "prompt": "turn it blue",
            "negative_prompt": " ",
            "aspect_ratio": "4:3",
            "seed": 7,
            "num_inference_steps": 1,
            "guidance_scale": 1.0,
            "image_format": "png",
            "quality": 90,
            "base64": False,
        },
        "generation_url": result["output"],
        "error": None,
    }
    assert httpx.get(row["generation_url"]).headers["content-type"] == "image/png"


def test_what_was_asked_can_be_asked_again(fresh: httpx.Client, params, pictures: Gallery) -> None:
    """The row's body is a request: the seed that was drawn and the defaults that were taken are in it."""
    submitted = run(fresh, params | {"image": pictures.url(), "seed": -1, "image_format": "png"})
    body = rows(fresh, REQUESTS)[0]["request_body"]
    again = run(fresh, body)
    first, second = (fresh.get(one["response_url"]).json()["output"] for one in (submitted, again))
    one, other = (Image.open(BytesIO(httpx.get(url).content)).tobytes() for url in (first, second))
    assert one == other


def test_a_request_that_failed(fresh: httpx.Client, params, pictures: Gallery) -> None:
    """Its row has the error's words, code and field; it has cost nothing, and is no generation."""
    submitted = run(fresh, params | {"image": pictures.url("missing")})
    failed = fresh.get(submitted["response_url"]).json()
    (row,) = rows(fresh, REQUESTS)
    assert (row["model_status"], row["credits_deduction"], row["generation_url"]) == ("FAILED", 0, None)
    assert {name: row[name] for name in ("error", "code", "field")} == {
        name: failed[name] for name in ("error", "code", "field")
    }
    assert rows(fresh, GENERATIONS) == rows(fresh, RECENT, model_name=SLUG) == []


def test_a_request_that_waits(waiting: httpx.Client, params) -> None:
    """PENDING, with its price held, and nothing yet of what comes with the end."""
    request_id = submit(waiting, params)
    (row,) = rows(waiting, REQUESTS)
    assert (row["request_id"], row["model_status"], row["credits_deduction"]) == (request_id, "PENDING", 0.04)
    assert [row[name] for name in ("generation_url", "latency_ms", "model_ended", "expires_at", "error")] == [None] * 5
    assert rows(waiting, GENERATIONS) == rows(waiting, RECENT, model_name=SLUG) == []


def test_generations_have_the_sdks_names_too(fresh: httpx.Client, params) -> None:
    """A row of the generations is the request's, with status, prompt and parameters."""
    run(fresh, params)
    (row,) = rows(fresh, REQUESTS)
    named = {"status": "COMPLETED", "prompt": "turn it blue", "parameters": row["request_body"]}
    assert rows(fresh, GENERATIONS) == rows(fresh, RECENT, model_name=SLUG) == [row | named]


def test_one_by_its_id(waiting: httpx.Client, params) -> None:
    """The same row."""
    request_id = submit(waiting, params)
    assert waiting.get(f"{REQUESTS}/{request_id}").json() == rows(waiting, REQUESTS)[0]


def test_a_client_that_hung_up_finds_its_request(
    node: Node, params, pictures: Gallery, request: pytest.FixtureRequest
) -> None:
    """While it runs, and when it is done: nothing but the key and the model need be known."""
    secret = node.new_key(request.node.name)
    hang_up(node, secret, f"/v1/{SLUG}", json.dumps(params | {"image": pictures.url("held")}).encode(), pictures)
    with node.client(secret) as client:
        (request_id,) = ids(client, REQUESTS, status="PENDING")
        pictures.open_gate.set()
        while rows(client, REQUESTS)[0]["model_status"] == "PENDING":
            pass
        assert ids(client, RECENT, model_name=SLUG) == [request_id]
        assert client.get(f"/v2/requests/{request_id}").json()["status"] == "COMPLETED"


def test_anothers_requests(waiting: httpx.Client, idle: Node, params) -> None:
    """Are in nobody else's pages, and are not found by their ids."""
    request_id = submit(waiting, params)
    with idle.client(idle.new_key("curious")) as other:
        for path in PAGES:
            assert rows(other, path) == []
        answer = other.get(f"{REQUESTS}/{request_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_request")
    assert answer.json()["error"] == f"Request {request_id} not found"
    assert waiting.get(f"{REQUESTS}/{'0' * 32}").status_code == 404


def test_it_takes_a_key(idle: Node) -> None:
    """401 without."""
    for path in (*PAGES, f"{REQUESTS}/{'0' * 32}"):
        assert httpx.get(idle.url + path).status_code == 401


def test_pages(waiting: httpx.Client, params) -> None:
    """Newest first, each request on one page, and every page says how many there are."""
    submitted = [submit(waiting, params) for _ in range(3)][::-1]
    answers = [waiting.get(REQUESTS, params={"page": page, "per_page": 2}).json() for page in (1, 2, 3)]
    assert [[row["request_id"] for row in answer.pop("data")] for answer in answers] == [
        submitted[:2],
        submitted[2:],
        [],
    ]
    assert answers == [{"page": page, "per_page": 2, "total": 3, "total_pages": 2} for page in (1, 2, 3)]
    assert ids(waiting, REQUESTS, page="9" * 4000) == []


def test_of_a_model(waiting: httpx.Client, params) -> None:
    """The history takes a part of the name, the generations the whole."""
    plain = submit(waiting, params)
    params["image_1"] = params.pop("image")
    multi = submit(waiting, params, f"{SLUG}-multi-lora")
    assert ids(waiting, REQUESTS, model_name=SLUG) == [multi, plain]
    assert ids(waiting, REQUESTS, model_name="Multi") == [multi]
    assert ids(waiting, REQUESTS, model_name="flux") == []
    assert ids(waiting, REQUESTS, sort_by="model_name", sort_order="asc") == [plain, multi]
    assert ids(waiting, REQUESTS, sort_by="credits_deduction") == [multi, plain]


def test_generations_of_a_model(waiting: httpx.Client, idle: Node, params) -> None:
    """None of its siblings', whose names begin alike."""
    submitted = submit(waiting, params)
    ledger = idle.service.ledger
    while True:
        job, lease = ledger.claim("a worker")
        if job.id == submitted:
            break
        ledger.fail(lease, Failure(code="engine_failed", message="x"))
    ledger.complete(lease, RESULT)
    for path in (RECENT, GENERATIONS):
        assert ids(waiting, path, model_name=SLUG) == [submitted]
        assert ids(waiting, path, model_name="qwen") == []


def test_days(waiting: httpx.Client, params) -> None:
    """Both ends count, in UTC."""
    request_id = submit(waiting, params)
    created = datetime.fromisoformat(waiting.get(f"{REQUESTS}/{request_id}").json()["model_created"])
    assert created.utcoffset() == timedelta()
    day, before, after = (str((created + timedelta(days=days)).date()) for days in (0, -1, 1))
    for window in ({"from_date": day}, {"to_date": day}, {"from_date": day, "to_date": day}):
        assert ids(waiting, REQUESTS, **window) == [request_id]
    assert ids(waiting, REQUESTS, from_date=after) == ids(waiting, REQUESTS, to_date=before) == []
    assert ids(waiting, REQUESTS, to_date="9999-12-31") == [request_id]
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=1.5", "page"),
        ("page=", "page"),
        ("page=" + "9" * 5000, "page"),
        ("page=1&page=2", "page"),
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("per_page=many", "per_page"),
        ("status=QUEUED", "status"),
        ("status=completed", "status"),
        ("from_date=yesterday", "from_date"),
        ("from_date=20261129", "from_date"),
        ("to_date=2026-02-30", "to_date"),
        ("from_date=2026-11-02&to_date=2026-11-01", "from_date"),
        ("from_date=2026-10-01&to_date=2026-11-02", "from_date"),
        ("sort_by=seed", "sort_by"),
        ("sort_order=up", "sort_order"),
        ("user_id=someone", "user_id"),
        ("user_email=a@example.com", "user_email"),
    ],
)
def test_a_bad_parameter(queue: httpx.Client, query: str, field: str) -> None:
    """400 that names it."""
    assert refused(queue.get(f"{REQUESTS}?{query}"), field).startswith(field)


def test_an_unknown_parameter(queue: httpx.Client) -> None:
    """Named, not ignored."""
    assert "from_date" in refused(queue.get(f"{REQUESTS}?form_date=2026-11-01"), "form_date", "unknown_field")
    refused(queue.get(f"{GENERATIONS}?status=FAILED"), "status", "unknown_field")
    refused(queue.get(f"{RECENT}?model_name={SLUG}&start_date=2026-11-01"), "start_date", "unknown_field")


def test_bad_days_of_generations(queue: httpx.Client) -> None:
    """By the names they have there."""
    refused(queue.get(f"{GENERATIONS}?start_date=2026-11-02&end_date=2026-11-01"), "start_date")
    refused(queue.get(f"{GENERATIONS}?end_date=soon"), "end_date")


def test_recent_generations_are_a_models(queue: httpx.Client) -> None:
    """As the SDK has it: without a model, 400."""
    refused(queue.get(RECENT), "model_name")
    refused(queue.get(f"{RECENT}?model_name="), "model_name")


def test_the_keys_own_id(waiting: httpx.Client, params) -> None:
    """May be said."""
    request_id = submit(waiting, params)
    own = waiting.get("/api/auth/authenticate").json()["id"]
    assert ids(waiting, REQUESTS, user_id=own) == [request_id]
    assert rows(waiting, GENERATIONS, user_id=own) == []
