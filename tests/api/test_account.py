import httpx
import pytest

from darkroom.api.model_route import NO_MODELS
from serving import Node


def test_credits(idle: Node) -> None:
    """What the key can still spend."""
    with idle.client(idle.new_key("saver", credits=12.5)) as client:
        assert client.get("/v1/get-user-credits").json() == {"credits": 12.5, "free-credits": 0}


def test_who_the_key_is(idle: Node) -> None:
    """Its name and limits, never its secret."""
    secret = idle.new_key("named", credits=1, rate_per_minute=9, models=["qwen-image-edit-plus"])
    with idle.client(secret) as client:
        answer = client.get("/api/auth/authenticate")
    body = answer.json()
    assert body.pop("id")
    assert body == {"name": "named", "credits": 1, "rate_per_minute": 9, "models": ["qwen-image-edit-plus"]}
    assert secret not in answer.text


def test_models(queue: httpx.Client, idle: Node) -> None:
    """Every card, with the parameters a client can send."""
    models = queue.get("/inference-model-information/list").json()[
        "Inference Segmind Model Information List With Details"
    ]
    assert [model["slug"] for model in models] == list(idle.service.catalogue)
    seed = models[0]["parameters"]["seed"]
    assert (seed["type"], seed["minimum"], seed["maximum"]) == ("integer", -1, 999999999999999)
    assert {"slug", "title", "type", "description", "parameters"} <= models[0].keys()


def test_models_of_a_key(idle: Node) -> None:
    """Those it may use."""
    with idle.client(idle.new_key("narrow", models=["qwen-image-edit-plus-relight"])) as client:
        (models,) = client.get("/inference-model-information/list").json().values()
    assert [model["slug"] for model in models] == ["qwen-image-edit-plus-relight"]


def test_an_account_takes_a_key(idle: Node) -> None:
    """401 without."""
    for path in ("/v1/get-user-credits", "/api/auth/authenticate", "/inference-model-information/list"):
        assert httpx.get(idle.url + path).status_code == 401


@pytest.mark.parametrize(("path", "allowed"), [("/v1/get-user-credits", "GET"), ("/v2/loras", "GET")])
def test_an_account_is_no_model(queue: httpx.Client, path: str, allowed: str) -> None:
    """A POST to it is a wrong method, not an edit by a model of that name."""
    answer = queue.post(path, json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/requests", "/v2/requests"])
def test_requests_without_an_id_are_no_model(queue: httpx.Client, path: str) -> None:
    """There is no such path, for any method."""
    for method in ("GET", "POST", "DELETE"):
        answer = queue.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_no_model_goes_by_a_word_of_the_api(idle: Node) -> None:
    """And each word that stands where models do is known not to be one."""
    slugs = idle.service.catalogue.keys()
    assert not slugs & NO_MODELS
    with idle.client(None) as client:
        paths = client.get("/openapi.json").json()["paths"]
    parts = {path.split("/")[2] for path in paths if path.startswith(("/v1/", "/v2/"))}
    assert parts - slugs == NO_MODELS
