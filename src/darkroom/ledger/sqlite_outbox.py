"""The outbox on SQLite, in the ledger's own file. Messages are made by a trigger (sql/sqlite/003_webhooks.sql)."""

import json
import secrets
import uuid
from base64 import b64encode
from collections.abc import Collection, Sequence

from darkroom.errors import UnknownWebhook, WebhooksFull
from darkroom.ledger.outbox import CLAIM_S, MOST, RETRY_S, Outbox
from darkroom.ledger.rows import Row, delivery_of, webhook_of
from darkroom.ledger.sqlite_file import SqliteFile
from darkroom.webhook import Delivery, EventType, Webhook

SECRET_BYTES = 32


class SqliteOutbox(Outbox):
    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, key_id: str, *, url: str, types: Collection[EventType], base: str) -> Webhook:
        with self._file.transaction() as sql:
            sql.all("clear_webhooks", key_id=key_id)
            if sql.one("live_webhooks", key_id=key_id)["live"] >= MOST:
                raise WebhooksFull(f"A key may have {MOST} webhooks: make one inactive, or update one")
            row = sql.one(
                "add_webhook",
                id=uuid.uuid4().hex,
                key_id=key_id,
                url=url,
                types=_to_json(types),
                base=base,
                secret=f"whsec_{b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}",
            )
        return webhook_of(row)

    def update(self, webhook_id: str, *, key_id: str, url: str, types: Collection[EventType], base: str) -> Webhook:
        with self._file.transaction() as sql:
            row = sql.one("update_webhook", id=webhook_id, key_id=key_id, url=url, types=_to_json(types), base=base)
        return webhook_of(_found(row, webhook_id))

    def end(self, webhook_id: str, *, key_id: str) -> Webhook:
        with self._file.transaction() as sql:
            webhook = webhook_of(_found(sql.one("end_webhook", id=webhook_id, key_id=key_id), webhook_id))
            sql.all("drop_deliveries", webhook_id=webhook_id)
        return webhook

    def webhooks(self, key_id: str) -> list[Webhook]:
        with self._file.reading() as sql:
            return [webhook_of(row) for row in sql.all("webhooks_of_key", key_id=key_id)]

    def deliveries(self, webhook_id: str, *, key_id: str, limit: int) -> list[Delivery]:
        with self._file.reading() as sql:
            _found(sql.one("webhook_of_key", id=webhook_id, key_id=key_id), webhook_id)
            return [delivery_of(row) for row in sql.all("deliveries_of_webhook", webhook_id=webhook_id, limit=limit)]

    def claim(self, *, busy: Collection[str], limit: int) -> Sequence[tuple[Delivery, Webhook]]:
        with self._file.reading() as sql:
            due = [row["id"] for row in sql.all("due_deliveries", busy=json.dumps(list(busy)), limit=limit)]
        if not due:
            return []
        with self._file.transaction(durable=False) as sql:
            claimed = [row for each in due if (row := sql.one("claim_delivery", id=each, claim_s=CLAIM_S))]
            return [(delivery_of(row), webhook_of(sql.one("webhook", id=row["webhook_id"]))) for row in claimed]

    def note(self, delivery: Delivery, *, status: int | None, error: str | None) -> None:
        again = error is not None and delivery.attempt <= len(RETRY_S)
        with self._file.transaction(durable=False) as sql:
            sql.all(
                "note_delivery",
                id=delivery.id,
                attempt=delivery.attempt,
                status=status,
                error=error,
                again_s=RETRY_S[delivery.attempt - 1] if again else None,
            )


def _to_json(types: Collection[EventType]) -> str:
    return json.dumps(sorted(set(types)))


def _found(row: Row | None, webhook_id: str) -> Row:
    if row is None:
        raise UnknownWebhook(webhook_id)
    return row
