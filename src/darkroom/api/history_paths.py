"""The history's paths in the API's document."""

from typing import Any

from darkroom.api.history import BY_TIME, DIRECTIONS, MOST_DAYS, MOST_PER_PAGE, PER_PAGE, SORTED
from darkroom.api.operations import in_query, json_answer, operation, parameter
from darkroom.api.refusals import BAD_QUERY, UNAUTHORIZED, UNKNOWN_REQUEST, answers
from darkroom.api.rows import INLINE, Status
from darkroom.api.schemas import Schema

_KEPT = "A request is kept until an hour after its end, or as long as the operator has set; so is its row."
_PAGE = (
    in_query("page", "Which page, from 1 on.", type="integer", minimum=1, default=1),
    in_query("per_page", "Rows a page.", type="integer", minimum=1, maximum=MOST_PER_PAGE, default=PER_PAGE),
)
_USER = in_query("user_id", "The key's own id, which is what it is without: there are no teams.")
_OF_MODEL = "Only of this model."

_ASKED = {
    "image": INLINE,
    "prompt": "Make the wall blue",
    "negative_prompt": " ",
    "aspect_ratio": "match_input_image",
    "seed": 7,
    "num_inference_steps": 8,
    "guidance_scale": 4.0,
    "image_format": "webp",
    "quality": 90,
    "base64": False,
}
_REQUEST = {
    "request_id": "6f0f3c1e2b5d4a7e9c8d1f2a3b4c5d6e",
    "model_name": "qwen-image-edit-plus",
    "model_status": "COMPLETED",
    "credits_deduction": 0.04,
    "request_body": _ASKED,
    "generation_url": "https://images.example.com/files/6f0f3c1e2b5d4a7e9c8d1f2a3b4c5d6e/qwen-image-edit-plus-7.webp"
    "?expires=1795930200&signature=3b1f",
    "latency_ms": 13060,
    "model_created": "2026-11-29T04:29:46.940+00:00",
    "model_ended": "2026-11-29T04:30:00.000+00:00",
    "expires_at": "2026-11-29T05:30:00.000+00:00",
    "error": None,
}
_GENERATION = _REQUEST | {"status": "COMPLETED", "prompt": _ASKED["prompt"], "parameters": _ASKED}


def history_paths() -> dict[str, Schema]:
    return {
        "/inference-request/recent-generations": _listed(
            "list_recent_generations",
            "The latest pictures of a model",
            _page("GenerationPage", _GENERATION),
            in_query("model_name", _OF_MODEL, required=True, minLength=1),
            *_PAGE,
        ),
        "/inference-request/generations": _listed(
            "list_generations",
            "The requests that have given a picture",
            _page("GenerationPage", _GENERATION),
            in_query("model_name", _OF_MODEL),
            *_days("start_date", "end_date"),
            _USER,
            *_PAGE,
        ),
        "/inference-request/request-history": _listed(
            "list_requests",
            "The requests, whatever has become of them",
            _page("RequestPage", _REQUEST),
            in_query("model_name", "Only of models whose name has this in it."),
            in_query("status", "Only those that stand so.", enum=[*Status]),
            *_days("from_date", "to_date"),
            _USER,
            in_query("sort_by", "What they go by.", enum=[*SORTED], default=BY_TIME),
            in_query("sort_order", "desc: the newest, or dearest, first.", enum=[*DIRECTIONS], default=DIRECTIONS[0]),
            *_PAGE,
        ),
        "/inference-request/request-history/{request_id}": {
            "parameters": [parameter("RequestId")],
            "get": operation(
                "history",
                "get_request",
                "One request",
                {"200": json_answer("RequestRow", "What has become of it.", example=_REQUEST)}
                | answers(UNAUTHORIZED, UNKNOWN_REQUEST),
                description=_KEPT,
            ),
        },
    }


def _page(shape: str, row: dict[str, Any]) -> Schema:
    example = {"data": [row], "page": 1, "per_page": PER_PAGE, "total": 1, "total_pages": 1}
    return {"200": json_answer(shape, "A page of them, the newest first.", example=example)}


def _listed(name: str, summary: str, found: Schema, *parameters: Schema) -> Schema:
    refused = answers(BAD_QUERY, UNAUTHORIZED)
    return {"get": operation("history", name, summary, found | refused, description=_KEPT, parameters=[*parameters])}


def _days(first: str, last: str) -> tuple[Schema, Schema]:
    return (
        in_query(first, f"The first day, in UTC, at most {MOST_DAYS} days before {last}.", format="date"),
        in_query(last, "The last day, in UTC.", format="date"),
    )
