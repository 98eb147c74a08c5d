-- Webhooks of keys, and the messages they are owed. A message is made by whatever ends the job, in its transaction.

CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key_id TEXT NOT NULL REFERENCES keys (id),
    url TEXT NOT NULL,
    types TEXT NOT NULL CHECK (json_type(types) = 'array'),
    base TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_at REAL NOT NULL,
    -- Since when nothing is sent to it any more.
    ended_at REAL CHECK (ended_at >= created_at)
) STRICT;

CREATE INDEX webhooks_of_key ON webhooks (key_id);

CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id),
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    created_at REAL NOT NULL,
    -- When the next attempt may begin; NULL: there will be none.
    due_at REAL,
    sent_at REAL,
    -- What came of the latest attempt: an HTTP status, and what was wrong.
    status INTEGER,
    error TEXT
) STRICT;

CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, seq);
CREATE INDEX deliveries_of_job ON deliveries (job_id);

CREATE TRIGGER jobs_told AFTER UPDATE OF state ON jobs WHEN NEW.state IN ('COMPLETED', 'FAILED')
BEGIN
    INSERT INTO deliveries (id, webhook_id, job_id, type, created_at, due_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), webhooks.id, NEW.id, wanted.value, NEW.ended_at, NEW.ended_at
    FROM webhooks, json_each(webhooks.types) AS wanted
    WHERE webhooks.key_id = NEW.key_id
        AND webhooks.ended_at IS NULL
        AND wanted.value = 'request.' || lower(NEW.state);
END;
