"""A key's webhooks, under the paths that Segmind's SDK calls."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from darkroom.api.body import read_json
from darkroom.api.context import Addresses, Caller, Located, Serving
from darkroom.api.query import Query, check_name
from darkroom.api.rows import timestamp
from darkroom.catalogue.parameter import shorten
from darkroom.errors import InvalidField
from darkroom.fetch.guard import check_address
from darkroom.service import Service
from darkroom.webhook import Delivery, EventType, Webhook

router = APIRouter(prefix="/webhook")

MOST_LOGGED = 100
"""Messages that the log shows, the latest."""

ID_OF, URL, EVENT, TYPES = "webhook_id", "webhook_url", "event", "types"
ADDED, UPDATED, ENDED = "Webhook added", "Webhook updated", "Webhook made inactive"


@router.get("/get")
async def listed(service: Serving, key: Caller) -> Response:
    found = await asyncio.to_thread(service.ledger.outbox.webhooks, key.id)
    return JSONResponse({"webhooks": [*map(webhook_row, found)]})


@router.post("/add")
async def add(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    """Raises `RequestError`, as the next ones do."""
    wanted = _wanted(await _read(request, (URL, EVENT), service), service, at)
    return _changed(ADDED, await asyncio.to_thread(service.ledger.outbox.add, key.id, **wanted))


@router.post("/update")
async def update(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    params = await _read(request, (ID_OF, URL, EVENT), service)
    wanted, webhook_id = _wanted(params, service, at), _text(params, ID_OF)
    return _changed(UPDATED, await asyncio.to_thread(service.ledger.outbox.update, webhook_id, key_id=key.id, **wanted))


@router.get("/inactive")
async def end(request: Request, service: Serving, key: Caller) -> Response:
    """What the SDK calls to delete one."""
    return _changed(ENDED, await asyncio.to_thread(service.ledger.outbox.end, _asked(request), key_id=key.id))


@router.get("/dispatch-logs")
async def log(request: Request, service: Serving, key: Caller) -> Response:
    found = await asyncio.to_thread(service.ledger.outbox.deliveries, _asked(request), key_id=key.id, limit=MOST_LOGGED)
    return JSONResponse({"logs": [*map(delivery_row, found)]})


def webhook_row(webhook: Webhook) -> dict[str, Any]:
    return {
        ID_OF: webhook.id,
        URL: webhook.url,
        EVENT: {TYPES: webhook.types},
        "is_active": webhook.ended_at is None,
        "secret": webhook.secret,
        "created_at": timestamp(webhook.created_at),
    }


def delivery_row(delivery: Delivery) -> dict[str, Any]:
    return {
        "message_id": delivery.id,
        "request_id": delivery.job_id,
        "event_type": delivery.type,
        "status": delivery.outcome,
        "attempts": delivery.attempt,
        "response_code": delivery.status,
        "error": delivery.error,
        "created_at": timestamp(delivery.created_at),
        "sent_at": timestamp(delivery.sent_at),
        "next_attempt_at": timestamp(delivery.due_at),
    }


def _changed(message: str, webhook: Webhook) -> Response:
    return JSONResponse({"message": message, "webhook": webhook_row(webhook)})


def _asked(request: Request) -> str:
    webhook_id = Query(request, (ID_OF,)).text(ID_OF)
    if not webhook_id:
        raise InvalidField(f"{ID_OF} is missing: name the webhook, as /webhook/get lists them", field=ID_OF)
    return webhook_id


async def _read(request: Request, names: Sequence[str], service: Service) -> Mapping[str, object]:
    params = await read_json(request, max_bytes=service.settings.max_body_bytes)
    for name in params:
        check_name(name, names)
    return params


def _wanted(params: Mapping[str, object], service: Service, at: Addresses) -> dict[str, Any]:
    """What the outbox is to be told of the webhook."""
    url = _text(params, URL)
    check_address(url, field=URL, allow=service.settings.fetch_allow)
    return {"url": url, "types": _types(params.get(EVENT)), "base": at.base}


def _text(params: Mapping[str, object], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidField(f"{name} is missing, or no text", field=name)
    return value


def _types(event: object) -> list[EventType]:
    """Of `{"types": […]}`."""
    types = event.get(TYPES) if isinstance(event, dict) and event.keys() == {TYPES} else None
    all_ = ", ".join(EventType)
    if not isinstance(types, list) or not types:
        raise InvalidField(f'{EVENT} must be {{"{TYPES}": […]}} with one of {all_}, or more', field=EVENT)
    for each in types:
        if each not in [*EventType]:
            raise InvalidField(f"{EVENT}: there is no type {shorten(str(each))!r}, only {all_}", field=EVENT)
    return [*map(EventType, types)]
