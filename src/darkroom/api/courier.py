"""Sends what the outbox holds: to a key's webhooks, how its requests have ended.

A message is in the form of Standard Webhooks (standardwebhooks.com), and signed as that says.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
from standardwebhooks import Webhook as Signer

from darkroom.api.answers import completed, failed
from darkroom.api.context import Addresses
from darkroom.api.rows import timestamp
from darkroom.fetch.transport import Refused, Transient, Transport, Unreachable
from darkroom.job import Job
from darkroom.service import POLL_S, Service
from darkroom.webhook import Delivery, EventType, Webhook

MOST_AT_ONCE = 16
"""Messages on their way. To one webhook there is one at a time, so that none that hangs can take all."""

ATTEMPT_S = 15.0
"""For the receiver to answer. Much shorter than the outbox's `CLAIM_S`."""

log = structlog.get_logger()


class Courier:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._transport = Transport(allow=service.settings.fetch_allow)

    async def run(self) -> None:
        """Until cancelled; what is then on its way is sent again by the next service."""
        sending: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                for delivery, webhook in await self._due(sending):
                    sending[webhook.id] = tasks.create_task(self._deliver(delivery, webhook))
                if sending:
                    await asyncio.wait(sending.values(), timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(POLL_S)
                sending = {webhook_id: task for webhook_id, task in sending.items() if not task.done()}

    async def _due(self, sending: Mapping[str, object]) -> list[tuple[Delivery, Webhook]]:
        outbox = self._service.ledger.outbox
        try:
            return [*await asyncio.to_thread(outbox.claim, busy=[*sending], limit=MOST_AT_ONCE - len(sending))]
        except Exception:
            log.exception("webhooks wait")
            return []

    async def _deliver(self, delivery: Delivery, webhook: Webhook) -> None:
        try:
            status, error = await self._attempt(delivery, webhook)
            await asyncio.to_thread(self._service.ledger.outbox.note, delivery, status=status, error=error)
        except Exception:
            log.exception("a webhook's message waits", delivery=delivery.id, request_id=delivery.job_id)
        else:
            log.info("webhook", delivery=delivery.id, request_id=delivery.job_id, status=status, error=error)

    async def _attempt(self, delivery: Delivery, webhook: Webhook) -> tuple[int | None, str | None]:
        """The status that the receiver answered with, and what was wrong, if anything was."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                status = await self._post(delivery, webhook)
        except TimeoutError:
            return None, f"the receiver did not answer within {ATTEMPT_S:g} s"
        except (Refused, Unreachable, Transient) as problem:
            return None, str(problem)
        return status, None if status // 100 == 2 else f"the receiver answered {status}"

    async def _post(self, delivery: Delivery, webhook: Webhook) -> int:
        service = self._service
        at = Addresses(base=service.settings.public_url or webhook.base, links=service.links)
        body = message(await service.job(delivery.job_id), delivery.type, at)
        sent_at = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": Signer(webhook.secret).sign(delivery.id, sent_at, body),
        }
        return await self._transport.post(webhook.url, body.encode(), headers)


def message(job: Job, type: EventType, at: Addresses) -> str:  # noqa: A002  its name on the wire
    """`data` is what v2 answers for the request's result, but for a picture in base64."""
    data = completed(job, at, picture=None) if type is EventType.COMPLETED else failed(job)
    return json.dumps({"type": type, "timestamp": timestamp(job.ended_at), "data": data})
