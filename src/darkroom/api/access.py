"""The outermost layer: gives every request its id and its line in the log, and an answer even where the code failed."""

import time
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.api.errors import internal_error

HUNG_UP = 499
"""What the log has as status where the client left before the answer."""

log = structlog.get_logger("darkroom.api")


class Access:
    """ASGI middleware. `state["request_id"]` of the scope is the request's id: the id of the job it submits, and
    `x-request-id` in the answer. Whoever answers for another job sets it to that job's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = uuid4().hex
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = state["request_id"]
            await send(message)

        structlog.contextvars.clear_contextvars()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                status = HUNG_UP
            except Exception:
                log.exception("request failed")
                if status is not None:
                    raise
                await internal_error(state["request_id"])(scope, receive, send_with_id)
            finally:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=HUNG_UP if status is None else int(status),
                    ms=round((time.perf_counter() - started) * 1000, 1),
                )
