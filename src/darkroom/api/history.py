"""What a key has asked for before, under the paths that Segmind's SDK calls. It is kept as long as the requests are."""

import math
from collections.abc import Callable
from datetime import date
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from darkroom.api.context import Addresses, Caller, Located, Serving, own_job
from darkroom.api.query import Query
from darkroom.api.rows import Status, generation_row, request_row
from darkroom.errors import InvalidField
from darkroom.job import Job, State
from darkroom.ledger.contract import Key, Order, Search
from darkroom.service import Service

router = APIRouter(prefix="/inference-request")

PER_PAGE = 20
MOST_PER_PAGE = 100
MOST_DAYS = 31
DAY_S = 86400

BY_TIME = "model_created"
SORTED = {BY_TIME: Order.ACCEPTED, "model_name": Order.SLUG, "credits_deduction": Order.CHARGE}
ASCENDING = "asc"
DIRECTIONS = ("desc", ASCENDING)

_PAGE = ("page", "per_page")
RECENT = ("model_name", *_PAGE)
GENERATIONS = ("model_name", *_PAGE, "start_date", "end_date", "user_id")
REQUESTS = (
    *("model_name", *_PAGE, "from_date", "to_date", "status"),
    *("user_id", "user_email", "sort_by", "sort_order"),
)
"""The parameters of each."""


@router.get("/recent-generations")
async def recent(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    """Raises `UnknownField`, `InvalidField`, as the next ones do."""
    query = Query(request, RECENT)
    slug = query.text("model_name")
    if not slug:
        raise InvalidField("model_name is missing: name the model whose pictures to list", field="model_name")
    return await _page(query, service, at, generation_row, key_id=key.id, states=(State.COMPLETED,), slugs=(slug,))


@router.get("/generations")
async def generations(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    query = Query(request, GENERATIONS)
    _check_user(query, key)
    slug = query.text("model_name")
    since, until = _window(query, "start_date", "end_date")
    return await _page(
        query,
        service,
        at,
        generation_row,
        key_id=key.id,
        states=(State.COMPLETED,),
        slugs=(slug,) if slug else None,
        since=since,
        until=until,
    )


@router.get("/request-history")
async def requests(request: Request, service: Serving, key: Caller, at: Located) -> Response:
    query = Query(request, REQUESTS)
    _check_user(query, key)
    part = (query.text("model_name") or "").lower()
    status = query.choice("status", tuple(Status))
    since, until = _window(query, "from_date", "to_date")
    return await _page(
        query,
        service,
        at,
        request_row,
        key_id=key.id,
        states=Status(status).states if status else tuple(State),
        slugs=[slug for slug in service.catalogue if part in slug] if part else None,
        since=since,
        until=until,
        order=SORTED[query.choice("sort_by", SORTED) or BY_TIME],
        ascending=query.choice("sort_order", DIRECTIONS) == ASCENDING,
    )


@router.get("/request-history/{request_id}")
async def one(request_id: str, service: Serving, key: Caller, at: Located) -> Response:
    return JSONResponse(request_row(await own_job(request_id, service=service, key=key), at))


async def _page(
    query: Query, service: Service, at: Addresses, row: Callable[[Job, Addresses], dict[str, Any]], **wanted: Any
) -> Response:
    page = query.whole("page", default=1)
    per_page = query.whole("per_page", default=PER_PAGE, most=MOST_PER_PAGE)
    found = await service.history(Search(limit=per_page, offset=(page - 1) * per_page, **wanted))
    return JSONResponse(
        {
            "data": [row(job, at) for job in found.jobs],
            "page": page,
            "per_page": per_page,
            "total": found.total,
            "total_pages": math.ceil(found.total / per_page),
        }
    )


def _check_user(query: Query, key: Key) -> None:
    """There are no teams here: a key stands for itself alone."""
    if query.text("user_id") not in (None, key.id):
        raise InvalidField(f"user_id: a key has its own requests only; leave it out, or send {key.id}", field="user_id")
    if query.text("user_email") is not None:
        raise InvalidField("user_email: a key has no e-mail address here; leave it out", field="user_email")


def _window(query: Query, first: str, last: str) -> tuple[float | None, float | None]:
    """From the beginning of the first day to the end of the last, in UTC and seconds since the epoch; None: no bound.
    first, last: the parameters' names."""
    since, until = query.day(first), query.day(last)
    if since and until and since > until:
        raise InvalidField(f"{first} is after {last}", field=first)
    if since and until and (until - since).days > MOST_DAYS:
        raise InvalidField(f"{first} and {last} are more than {MOST_DAYS} days apart", field=first)
    return _begins(since) if since else None, _begins(until) + DAY_S if until else None


def _begins(day: date) -> float:
    return float((day.toordinal() - date(1970, 1, 1).toordinal()) * DAY_S)
