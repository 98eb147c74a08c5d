"""Rows of the ledger's tables as the values the contract speaks of."""

import json
from dataclasses import asdict
from typing import Any, Protocol

from darkroom.edit import Edit
from darkroom.job import Event, Failure, Job, Progress, Result, Stage, State
from darkroom.ledger.contract import Key
from darkroom.webhook import Delivery, EventType, Webhook


class Row(Protocol):
    def __getitem__(self, column: str, /) -> Any: ...


def to_json(value: Progress | Result | Failure) -> str:
    return json.dumps(asdict(value))


def key_of(row: Row) -> Key:
    models = row["models"]
    return Key(
        id=row["id"],
        name=row["name"],
        granted_micro=row["granted_micro"],
        balance_micro=row["balance_micro"],
        held_micro=row["held_micro"],
        spent_micro=row["spent_micro"],
        rate_per_minute=row["rate_per_minute"],
        models=None if models is None else tuple(json.loads(models)),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def job_of(row: Row) -> Job:
    return Job(
        id=row["id"],
        key_id=row["key_id"],
        slug=row["slug"],
        edit=Edit.from_record(json.loads(row["edit"])),
        price_micro=row["price_micro"],
        state=State(row["state"]),
        attempt=row["attempt"],
        fence=row["fence"],
        cancel_requested=bool(row["cancel_requested"]),
        progress=_progress_of(row["progress"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        expires_at=row["expires_at"],
        remaining_micro=row["remaining_micro"],
        result=_result_of(row["result"]),
        failure=None if row["failure"] is None else Failure(**json.loads(row["failure"])),
        resolve_s=row["resolve_s"],
    )


def event_of(row: Row) -> Event:
    return Event(at=row["at"], kind=row["kind"], attempt=row["attempt"], detail=json.loads(row["detail"]))


def webhook_of(row: Row) -> Webhook:
    return Webhook(
        id=row["id"],
        key_id=row["key_id"],
        url=row["url"],
        types=tuple(map(EventType, json.loads(row["types"]))),
        base=row["base"],
        secret=row["secret"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def delivery_of(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        job_id=row["job_id"],
        type=EventType(row["type"]),
        attempt=row["attempt"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        sent_at=row["sent_at"],
        status=row["status"],
        error=row["error"],
    )


def _progress_of(text: str | None) -> Progress | None:
    if text is None:
        return None
    record = json.loads(text)
    return Progress(**{**record, "stage": Stage(record["stage"])})


def _result_of(text: str | None) -> Result | None:
    if text is None:
        return None
    record = json.loads(text)
    return Result(**{**record, "warnings": tuple(record["warnings"])})
