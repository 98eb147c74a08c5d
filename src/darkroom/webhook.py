"""A webhook: an address that is told when a key's requests end, and the messages it is sent."""

from dataclasses import dataclass
from enum import StrEnum


class EventType(StrEnum):
    COMPLETED = "request.completed"
    FAILED = "request.failed"


class Outcome(StrEnum):
    """What has become of a message. PENDING: it is still to be sent, or to be sent again."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """types: of what it is told. base: the address of this server that its messages' links begin with. secret: what
    they are signed with, in Standard Webhooks' form. ended_at: since when it is sent nothing."""

    id: str
    key_id: str
    url: str
    types: tuple[EventType, ...]
    base: str
    secret: str
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A message to a webhook. id: the message's, the same at each attempt. attempt: how many have begun, the latest at
    `sent_at`; due_at: when the next one may, None where there will be none. status, error: what the receiver answered
    to the latest that has ended, and what was wrong with it."""

    id: str
    webhook_id: str
    job_id: str
    type: EventType
    attempt: int
    created_at: float
    due_at: float | None
    sent_at: float | None
    status: int | None
    error: str | None

    @property
    def outcome(self) -> Outcome:
        if self.due_at is not None:
            return Outcome.PENDING
        return Outcome.DELIVERED if self.error is None else Outcome.FAILED
