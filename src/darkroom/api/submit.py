"""Taking a job in: the way v1 and v2 share."""

import structlog
from starlette.requests import Request

from darkroom.admission import Asked
from darkroom.api.body import read_body
from darkroom.errors import InvalidField
from darkroom.ledger.contract import Accepted, Key
from darkroom.service import Service

IDEMPOTENCY_HEADER = "Idempotency-Key"
MAX_IDEMPOTENCY_NAME = 255


async def submit(request: Request, slug: str, *, service: Service, key: Key) -> Accepted:
    """The job, committed. From here on the request is answered under the job's id, which is its own unless the client
    has named an earlier one by its idempotency key. Raises `RequestError`."""
    name = idempotency_name(request)
    body = await read_body(request, max_bytes=service.settings.max_body_bytes)
    accepted = await service.submit(
        Asked(
            request_id=request.state.request_id,
            slug=slug,
            params=body.params,
            text=body.text,
            key=key,
            idempotency_name=name,
        )
    )
    request.state.request_id = accepted.job.id
    structlog.contextvars.bind_contextvars(request_id=accepted.job.id, slug=slug)
    return accepted


def idempotency_name(request: Request) -> str | None:
    """Raises `InvalidField`."""
    name = request.headers.get(IDEMPOTENCY_HEADER)
    if name is None:
        return None
    if not (0 < len(name) <= MAX_IDEMPOTENCY_NAME and name.isascii() and name.isprintable()):
        raise InvalidField(
            f"{IDEMPOTENCY_HEADER} must be 1 to {MAX_IDEMPOTENCY_NAME} printable ASCII characters",
            field=IDEMPOTENCY_HEADER,
        )
    return name
