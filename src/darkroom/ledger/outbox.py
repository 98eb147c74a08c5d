"""What the outbox promises: keys' webhooks, and the messages that a ledger owes them.

1.  A message is made by the transaction that ends the job: a job that has ended is told of, whatever is killed when.
2.  It is sent at least once, and again until its receiver has taken it, the last of `RETRY_S` is over, its webhook has
    ended, its key is revoked, or its job has expired, with which it goes. Its id tells a receiver what it has had.
3.  At most one service sends it at a time: a claim lasts `CLAIM_S`, by the ledger's clock.

Methods block (a few milliseconds at most) and may be called from any thread.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from darkroom.webhook import Delivery, EventType, Webhook

MOST = 20
"""Webhooks that a key may have at a time."""

RETRY_S = (5.0, 30.0, 120.0, 600.0, 1800.0)
"""After each attempt that failed, until the next one. The last begins 43 minutes after the first, while what the
message links to is still there."""

CLAIM_S = 60.0
"""Longer than an attempt may take. What is not noted by then is sent again: its sender is dead."""


class Outbox(Protocol):
    def add(self, key_id: str, *, url: str, types: Collection[EventType], base: str) -> Webhook:
        """Raises `WebhooksFull`."""

    def update(self, webhook_id: str, *, key_id: str, url: str, types: Collection[EventType], base: str) -> Webhook:
        """What waits to be sent goes to the new address. Raises `UnknownWebhook`, also for one that has ended."""

    def end(self, webhook_id: str, *, key_id: str) -> Webhook:
        """Nothing more is sent to it, waiting messages neither. Raises `UnknownWebhook`."""

    def webhooks(self, key_id: str) -> list[Webhook]:
        """The key's, newest first; ended ones as long as their messages are kept."""

    def deliveries(self, webhook_id: str, *, key_id: str, limit: int) -> list[Delivery]:
        """Its latest, newest first, as long as their jobs are kept. Raises `UnknownWebhook`."""

    def claim(self, *, busy: Collection[str], limit: int) -> Sequence[tuple[Delivery, Webhook]]:
        """What is to be sent now: `limit` messages at most, to as many webhooks, none of them among `busy`."""

    def note(self, delivery: Delivery, *, status: int | None, error: str | None) -> None:
        """What came of the attempt that was claimed. status: the receiver's answer; error: why it is to be sent again,
        None if it is not. Of a claim that was lost meanwhile nothing is noted."""
