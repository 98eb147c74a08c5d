"""From an error to what a client gets: one table of statuses, one body.

    {"error": "<what went wrong and what to do>", "code": "<stable>", "field": "<parameter>", "request_id": "<id>"}

`field` stands there only where one parameter is at fault.
"""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from darkroom import errors

STATUS: Mapping[type[errors.DarkroomError], int] = {
    errors.MalformedBody: 400,
    errors.InvalidField: 400,
    errors.UnknownField: 400,
    errors.LoraError: 400,
    errors.MissingKey: 401,
    errors.InvalidKey: 401,
    errors.ModelForbidden: 403,
    errors.LinkInvalid: 403,
    errors.UnknownPath: 404,
    errors.UnknownModel: 404,
    errors.UnknownRequest: 404,
    errors.UnknownWebhook: 404,
    errors.LinkExpired: 404,
    errors.MethodNotAllowed: 405,
    errors.InsufficientCredits: 406,
    errors.UnsupportedMediaType: 406,
    errors.IdempotencyConflict: 409,
    errors.WebhooksFull: 409,
    errors.BodyTooLarge: 413,
    errors.UploadsFull: 413,
    errors.RangeInvalid: 416,
    errors.JobError: 422,
    errors.LoraChanged: 422,
    errors.LoraNotFinite: 422,
    errors.RateLimited: 429,
    errors.SetupError: 500,
    errors.LeaseLost: 500,
    errors.WorkerLost: 502,
    errors.AdapterUnavailable: 503,
    errors.StorageFull: 503,
    errors.LoraNoRoom: 503,
    errors.StillRunning: 504,
}
"""An error's status is that of the nearest class above it that stands here. Of a `LoraError` it is that of a submit
that is refused with it; a job that ends with it has `JobError`'s."""

INTERNAL_ERROR = "internal_error"
"""The code of an answer to what nobody foresaw."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def status_of(error: errors.DarkroomError) -> int:
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def error_body(message: str, *, code: str, request_id: str, field: str | None = None) -> dict[str, Any]:
    return {
        "error": _sendable(message),
        "code": code,
        **({} if field is None else {"field": _sendable(field)}),
        "request_id": request_id,
    }


def _sendable(text: str) -> str:
    """A message may quote what the client sent, and half of a surrogate pair can't be written as UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def internal_error(request_id: str) -> Response:
    """The answer to what nobody foresaw: nothing of the inside, but the id under which the log has it."""
    message = f"Internal error; the server's log has it under request {request_id}"
    return JSONResponse(error_body(message, code=INTERNAL_ERROR, request_id=request_id), 500)


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the one shape."""
    app.add_exception_handler(errors.DarkroomError, _darkroom_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


async def _darkroom_error(request: Request, exception: Exception) -> Response:
    error = cast("errors.DarkroomError", exception)
    request_id = request.state.request_id
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    body = error_body(error.message, code=error.code, field=error.field, request_id=request_id)
    return JSONResponse(body, status, _headers(error))


def _headers(error: errors.DarkroomError) -> dict[str, str]:
    if isinstance(error, errors.RateLimited):
        return {
            "retry-after": str(math.ceil(error.retry_after_s)),
            **rate_limit(limit=error.limit, remaining=0, reset_at=time.time() + error.reset_after_s),
        }
    if isinstance(error, errors.MissingKey | errors.InvalidKey):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, errors.RangeInvalid):
        return {"content-range": f"bytes */{error.size_bytes}"}
    return {}


def rate_limit(*, limit: int, remaining: int, reset_at: float) -> dict[str, str]:
    """The counters of a key's rate. reset_at: seconds since the epoch."""
    return {
        "x-rate-limit-limit": str(limit),
        "x-rate-limit-remaining": str(remaining),
        "x-rate-limit-reset-at-utc": datetime.fromtimestamp(math.ceil(reset_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


async def _http_exception(request: Request, exception: Exception) -> Response:
    error = cast("HTTPException", exception)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _method_not_allowed(request)
    if status == HTTPStatus.NOT_FOUND:
        return await _darkroom_error(request, errors.UnknownPath(f"No such path: {request.url.path}"))
    body = error_body(error.detail, code=status.name.lower(), request_id=request.state.request_id)
    return JSONResponse(body, status, error.headers)


def _method_not_allowed(request: Request) -> Response:
    # The router's own Allow names the methods of the first route that has this path, and there may be several.
    allowed = ", ".join(
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.router.routes
        )
    )
    error = errors.MethodNotAllowed(f"{request.method} is not allowed here; allowed: {allowed}")
    body = error_body(error.message, code=error.code, request_id=request.state.request_id)
    return JSONResponse(body, status_of(error), {"allow": allowed})


async def _validation_error(request: Request, exception: Exception) -> Response:
    first = cast("RequestValidationError", exception).errors()[0]
    field = str(first["loc"][-1])
    body = error_body(
        f"{field}: {first['msg']}",
        code=errors.InvalidField.code,
        field=field,
        request_id=request.state.request_id,
    )
    return JSONResponse(body, STATUS[errors.InvalidField])
