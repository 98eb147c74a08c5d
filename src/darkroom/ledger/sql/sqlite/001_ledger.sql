-- Keys with their credits, jobs, events. What must always be true stands here, so that no query can break it.
-- clock() is the ledger's own time in seconds since the epoch, the same throughout a transaction.

CREATE TABLE keys (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL CHECK (name <> ''),
    digest TEXT NOT NULL UNIQUE,
    granted_micro INTEGER NOT NULL CHECK (granted_micro >= 0),
    balance_micro INTEGER NOT NULL CHECK (balance_micro >= 0),
    held_micro INTEGER NOT NULL DEFAULT 0 CHECK (held_micro >= 0),
    spent_micro INTEGER NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
    rate_per_minute INTEGER CHECK (rate_per_minute > 0),
    models TEXT CHECK (json_type(models) = 'array'),
    -- The rate's theoretical arrival time (see rate.py).
    arrival_at REAL NOT NULL DEFAULT 0,
    -- Where the key's last job ends in virtual time: its next one starts no earlier.
    finish_tag REAL NOT NULL DEFAULT 0 CHECK (finish_tag >= 0),
    created_at REAL NOT NULL,
    revoked_at REAL CHECK (revoked_at >= created_at),
    CHECK (granted_micro = balance_micro + held_micro + spent_micro)
) STRICT;

CREATE UNIQUE INDEX keys_live_name ON keys (name) WHERE revoked_at IS NULL;

-- Start-time fair queueing: virtual time is the start tag of the latest job claimed.
CREATE TABLE fair (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    virtual_time REAL NOT NULL
) STRICT;

INSERT INTO fair (only_row, virtual_time) VALUES (1, 0);

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key_id TEXT NOT NULL REFERENCES keys (id),
    idempotency_name TEXT,
    idempotency_digest TEXT,
    slug TEXT NOT NULL,
    edit TEXT NOT NULL CHECK (json_valid(edit)),
    price_micro INTEGER NOT NULL CHECK (price_micro >= 0),
    work REAL NOT NULL CHECK (work > 0),
    fair_tag REAL NOT NULL CHECK (fair_tag >= 0),
    state TEXT NOT NULL DEFAULT 'QUEUED' CHECK (state IN ('QUEUED', 'PROCESSING', 'COMPLETED', 'FAILED')),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt BETWEEN 0 AND 3),
    fence INTEGER NOT NULL DEFAULT 0 CHECK (fence >= attempt),
    worker TEXT,
    -- The lease's last renewal and its end.
    leased_at REAL,
    lease_until REAL CHECK (lease_until >= leased_at),
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    progress TEXT CHECK (progress IS NULL OR json_valid(progress)),
    -- Why the job was last put back to the queue, if it was.
    setback TEXT CHECK (setback IS NULL OR json_valid(setback)),
    created_at REAL NOT NULL,
    -- The latest transition. Never goes back, whatever the clock does.
    changed_at REAL NOT NULL CHECK (changed_at >= created_at),
    started_at REAL CHECK (started_at >= created_at),
    ended_at REAL CHECK (ended_at >= created_at AND (started_at IS NULL OR ended_at >= started_at)),
    expires_at REAL CHECK (expires_at >= ended_at),
    remaining_micro INTEGER CHECK (remaining_micro >= 0),
    result TEXT CHECK (result IS NULL OR json_valid(result)),
    failure TEXT CHECK (failure IS NULL OR json_valid(failure)),
    UNIQUE (key_id, idempotency_name),
    CHECK ((idempotency_name IS NULL) = (idempotency_digest IS NULL)),
    CHECK (state <> 'QUEUED' OR (attempt < 3 AND started_at IS NULL AND NOT cancel_requested)),
    CHECK (state <> 'PROCESSING' OR (attempt > 0 AND started_at IS NOT NULL)),
    CHECK ((state = 'PROCESSING') = (worker IS NOT NULL)),
    CHECK ((state = 'PROCESSING') = (leased_at IS NOT NULL)),
    CHECK ((state = 'PROCESSING') = (lease_until IS NOT NULL)),
    CHECK (state = 'PROCESSING' OR progress IS NULL),
    CHECK ((state = 'COMPLETED') = (result IS NOT NULL)),
    CHECK ((state = 'FAILED') = (failure IS NOT NULL)),
    CHECK ((state IN ('COMPLETED', 'FAILED')) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (expires_at IS NULL)),
    CHECK ((ended_at IS NULL) = (remaining_micro IS NULL))
) STRICT;

CREATE INDEX jobs_queued ON jobs (fair_tag, seq) WHERE state = 'QUEUED';
CREATE INDEX jobs_running ON jobs (lease_until) WHERE state = 'PROCESSING';
CREATE INDEX jobs_ended ON jobs (expires_at, state) WHERE expires_at IS NOT NULL;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    detail TEXT NOT NULL CHECK (json_type(detail) = 'object')
) STRICT;

CREATE INDEX events_of_job ON events (job_id);

CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'an event does not change');
END;

CREATE TRIGGER jobs_start_queued BEFORE INSERT ON jobs WHEN NEW.state <> 'QUEUED' OR NEW.fence <> 0
BEGIN
    SELECT RAISE(ABORT, 'a job begins QUEUED, never claimed');
END;

CREATE TRIGGER jobs_keep_what_was_asked
BEFORE UPDATE OF seq, id, key_id, slug, edit, price_micro, work, fair_tag, created_at ON jobs
BEGIN
    SELECT RAISE(ABORT, 'what was accepted does not change');
END;

CREATE TRIGGER jobs_end_once
BEFORE UPDATE OF
    state, attempt, fence, worker, cancel_requested, progress, setback, changed_at, started_at, ended_at, expires_at,
    remaining_micro, result, failure
ON jobs WHEN OLD.ended_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the job has ended');
END;

CREATE TRIGGER jobs_move_on BEFORE UPDATE OF state, changed_at ON jobs
WHEN (OLD.state = 'QUEUED' AND NEW.state = 'COMPLETED') OR NEW.changed_at < OLD.changed_at
BEGIN
    SELECT RAISE(ABORT, 'a job completes only while it is running, and its time does not go back');
END;

-- A claim, and nothing else, raises the fence; it counts an attempt, which only a return to the queue can take back.
CREATE TRIGGER jobs_fence BEFORE UPDATE OF state, attempt, fence ON jobs
WHEN NEW.fence <> OLD.fence + (OLD.state = 'QUEUED' AND NEW.state = 'PROCESSING')
    OR NOT CASE
        WHEN OLD.state = 'QUEUED' AND NEW.state = 'PROCESSING' THEN NEW.attempt = OLD.attempt + 1
        WHEN OLD.state = 'PROCESSING' AND NEW.state = 'QUEUED' THEN NEW.attempt BETWEEN OLD.attempt - 1 AND OLD.attempt
        ELSE NEW.attempt = OLD.attempt
    END
BEGIN
    SELECT RAISE(ABORT, 'only a claim raises fence and attempt');
END;

CREATE TRIGGER jobs_are_not_lost BEFORE DELETE ON jobs WHEN OLD.ended_at IS NULL
BEGIN
    SELECT RAISE(ABORT, 'the job has not ended');
END;

-- A job holds its price from the first, and ending it settles that: no query ends a job without the money.
CREATE TRIGGER jobs_accepted AFTER INSERT ON jobs
BEGIN
    UPDATE keys
    SET balance_micro = balance_micro - NEW.price_micro, held_micro = held_micro + NEW.price_micro
    WHERE id = NEW.key_id;
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (NEW.id, NEW.created_at, 'accepted', 0, json_object('held_micro', NEW.price_micro));
END;

CREATE TRIGGER jobs_claimed AFTER UPDATE OF state ON jobs WHEN OLD.state = 'QUEUED' AND NEW.state = 'PROCESSING'
BEGIN
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (
        NEW.id, NEW.changed_at, 'claimed', NEW.attempt, json_object('worker', NEW.worker, 'fence', NEW.fence)
    );
END;

CREATE TRIGGER jobs_put_back AFTER UPDATE OF state ON jobs WHEN OLD.state = 'PROCESSING' AND NEW.state = 'QUEUED'
BEGIN
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (
        NEW.id,
        NEW.changed_at,
        CASE WHEN NEW.attempt < OLD.attempt THEN 'given_back' ELSE 'retried' END,
        OLD.attempt,
        CASE
            WHEN NEW.attempt < OLD.attempt THEN json_object('worker', OLD.worker)
            ELSE json_object('worker', OLD.worker, 'failure', json(NEW.setback))
        END
    );
END;

CREATE TRIGGER jobs_cancel_requested AFTER UPDATE OF cancel_requested ON jobs
WHEN NEW.cancel_requested AND NOT OLD.cancel_requested AND NEW.state = 'PROCESSING'
BEGIN
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (NEW.id, NEW.changed_at, 'cancel_requested', NEW.attempt, '{}');
END;

CREATE TRIGGER jobs_completed AFTER UPDATE OF state ON jobs WHEN NEW.state = 'COMPLETED'
BEGIN
    UPDATE keys
    SET held_micro = held_micro - NEW.price_micro, spent_micro = spent_micro + NEW.price_micro
    WHERE id = NEW.key_id;
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (NEW.id, NEW.ended_at, 'completed', NEW.attempt, json_object('charged_micro', NEW.price_micro));
END;

CREATE TRIGGER jobs_failed AFTER UPDATE OF state ON jobs WHEN NEW.state = 'FAILED'
BEGIN
    UPDATE keys
    SET held_micro = held_micro - NEW.price_micro, balance_micro = balance_micro + NEW.price_micro
    WHERE id = NEW.key_id;
    INSERT INTO events (job_id, at, kind, attempt, detail)
    VALUES (
        NEW.id,
        NEW.ended_at,
        'failed',
        NEW.attempt,
        json_object('returned_micro', NEW.price_micro, 'failure', json(NEW.failure))
    );
END;
