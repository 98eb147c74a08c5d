"""The webhooks in the API's document: how a key keeps them, and what they are sent."""

from typing import Any

from darkroom.api.body import JSON
from darkroom.api.model_schema import EXTENSION
from darkroom.api.operations import in_query, json_answer, operation
from darkroom.api.refusals import (
    BAD_QUERY,
    BAD_REQUEST,
    BODY_TOO_LARGE,
    UNAUTHORIZED,
    UNKNOWN_WEBHOOK,
    UNSUPPORTED,
    WEBHOOKS_FULL,
    answers,
)
from darkroom.api.schemas import Schema, ref
from darkroom.api.webhooks import ADDED, ENDED, EVENT, ID_OF, TYPES, UPDATED, URL
from darkroom.ledger.outbox import MOST, RETRY_S
from darkroom.webhook import EventType, Outcome

_WHICH = in_query(ID_OF, "The webhook's id.", required=True, minLength=1)
_BODY_REFUSED = (BAD_REQUEST, UNAUTHORIZED, UNSUPPORTED, BODY_TOO_LARGE)

_WANTED = {URL: "https://shop.example.com/darkroom", EVENT: {TYPES: [*EventType]}}
_WEBHOOK = {
    ID_OF: "0d9a4f1b7c2e4e6f8a3b5c7d9e1f2a4b",
    **_WANTED,
    "is_active": True,
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
    "created_at": "2026-11-29T04:29:46.940+00:00",
}
_DISPATCH = {
    "message_id": "msg_6f0f3c1e2b5d4a7e9c8d1f2a3b4c5d6e",
    "request_id": "6f0f3c1e2b5d4a7e9c8d1f2a3b4c5d6e",
    "event_type": EventType.COMPLETED,
    "status": Outcome.DELIVERED,
    "attempts": 1,
    "response_code": 204,
    "error": None,
    "created_at": "2026-11-29T04:30:00.000+00:00",
    "sent_at": "2026-11-29T04:30:00.412+00:00",
    "next_attempt_at": None,
}


def webhook_paths() -> dict[str, Schema]:
    listed = json_answer("Webhooks", "The newest first.", example={"webhooks": [_WEBHOOK]})
    logged = json_answer("Dispatches", "Its latest messages, the newest first.", example={"logs": [_DISPATCH]})
    full, unknown = (*_BODY_REFUSED, WEBHOOKS_FULL), (BAD_QUERY, UNAUTHORIZED, UNKNOWN_WEBHOOK)
    return {
        "/webhook/get": {
            "get": _operation("list_webhooks", "The key's webhooks", {"200": listed} | answers(UNAUTHORIZED))
        },
        "/webhook/add": {
            "post": _operation(
                "add_webhook",
                "Add a webhook",
                _changed(ADDED) | answers(*full),
                requestBody=_body("WebhookAddition", _WANTED),
                description=f"A key may have {MOST}. Addresses are held to the same rules as a picture's.",
            )
        },
        "/webhook/update": {
            "post": _operation(
                "update_webhook",
                "Change a webhook",
                _changed(UPDATED) | answers(*_BODY_REFUSED, UNKNOWN_WEBHOOK),
                requestBody=_body("WebhookUpdate", {ID_OF: _WEBHOOK[ID_OF], **_WANTED}),
                description="What waits to be sent goes to the new address. Its secret stays.",
            )
        },
        "/webhook/inactive": {
            "get": _operation(
                "end_webhook",
                "Send nothing more to a webhook",
                _changed(ENDED, is_active=False) | answers(*unknown),
                parameters=[_WHICH],
                description="What the SDK calls to delete one. What waits to be sent is dropped.",
            )
        },
        "/webhook/dispatch-logs": {
            "get": _operation(
                "list_dispatches", "What a webhook was sent", {"200": logged} | answers(*unknown), parameters=[_WHICH]
            )
        },
    }


def messages() -> dict[str, Schema]:
    """The document's `webhooks`: what receivers are sent."""
    return {
        EventType.COMPLETED: _told("A request has been completed", "CompletedMessage"),
        EventType.FAILED: _told("A request has failed", "FailedMessage"),
    }


def _told(summary: str, shape: str) -> Schema:
    last = f"{len(RETRY_S) + 1} times in all, over {sum(RETRY_S) / 60:.0f} minutes"
    words = (
        "In the form of Standard Webhooks: `webhook-id` is the message's, the same each time it is sent; "
        "`webhook-signature` is over id, timestamp and body, with the webhook's secret. "
        f"What is not answered with 2xx is sent again, {last}."
    )
    headers = [
        {"name": f"webhook-{name}", "in": "header", "required": True, "schema": {"type": "string"}}
        for name in ("id", "timestamp", "signature")
    ]
    return {
        "post": {
            "summary": summary,
            "description": words,
            "parameters": headers,
            "security": [],
            EXTENSION: True,
            "requestBody": {"required": True, "content": {JSON: {"schema": ref(shape)}}},
            "responses": {"2XX": {"description": "It was taken."}},
        }
    }


def _changed(message: str, **changed: Any) -> Schema:
    example = {"message": message, "webhook": _WEBHOOK | changed}
    return {"200": json_answer("WebhookChanged", "As it is now.", example=example)}


def _body(shape: str, example: dict[str, Any]) -> Schema:
    return {"required": True, "content": {JSON: {"schema": ref(shape), "examples": {"one": {"value": example}}}}}


def _operation(name: str, summary: str, responses: Schema, **more: Any) -> Schema:
    return operation("webhooks", name, summary, responses, **more)
