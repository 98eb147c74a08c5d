-- name: free_idempotency_name
-- A job past its time is not found any more: neither is it under its idempotency name.
UPDATE jobs SET idempotency_name = NULL, idempotency_digest = NULL
WHERE key_id = :key_id AND idempotency_name = :name AND expires_at <= clock();

-- name: job_of_idempotency_name
SELECT * FROM jobs WHERE key_id = :key_id AND idempotency_name = :name;

-- name: insert_job
INSERT INTO jobs (
    id, key_id, idempotency_name, idempotency_digest, slug, edit, price_micro, work, fair_tag, lora_set, resolve_s,
    created_at, changed_at
)
SELECT
    :id, keys.id, :idempotency_name, :idempotency_digest, :slug, :edit, :price_micro, :work,
    MAX(fair.virtual_time, keys.finish_tag), :lora_set, :resolve_s, clock(), clock()
FROM keys, fair
WHERE keys.id = :key_id
RETURNING *;

-- name: job
SELECT * FROM jobs WHERE id = :id AND (expires_at IS NULL OR expires_at > clock());

-- name: history
-- The ids of a key's jobs that are found, in order; to be read in the other direction too.
SELECT id FROM jobs
WHERE key_id = :key_id
    AND (expires_at IS NULL OR expires_at > clock())
    AND state IN (SELECT value FROM json_each(:states))
    AND (:slugs IS NULL OR slug IN (SELECT value FROM json_each(:slugs)))
    AND (:since IS NULL OR created_at >= :since)
    AND (:until IS NULL OR created_at < :until)
ORDER BY
    CASE :order WHEN 'slug' THEN slug WHEN 'charge' THEN price_micro * (state <> 'FAILED') ELSE seq END DESC,
    seq DESC;

-- name: jobs_in_order
SELECT jobs.* FROM json_each(:ids) AS listed JOIN jobs ON jobs.id = listed.value ORDER BY listed.key;

-- name: events
SELECT at, kind, attempt, detail FROM events WHERE job_id = :job_id ORDER BY seq;

-- name: counts
SELECT 'QUEUED' AS state, COUNT(*) AS jobs FROM jobs WHERE state = 'QUEUED'
UNION ALL
SELECT 'PROCESSING', COUNT(*) FROM jobs WHERE state = 'PROCESSING'
UNION ALL
SELECT state, COUNT(*) FROM jobs WHERE expires_at IS NOT NULL GROUP BY state;

-- name: waiting
-- The first in fair order, but for some.
SELECT id, fair_tag, work, lora_set, overtaken FROM jobs
WHERE state = 'QUEUED' AND id NOT IN (SELECT value FROM json_each(:passing))
ORDER BY fair_tag, seq LIMIT :limit;

-- name: note_overtaken
UPDATE jobs SET overtaken = overtaken + 1 WHERE state = 'QUEUED' AND id IN (SELECT value FROM json_each(:ids));

-- name: queued_job
SELECT * FROM jobs WHERE id = :id AND state = 'QUEUED';

-- name: claim
UPDATE jobs
SET state = 'PROCESSING',
    attempt = attempt + 1,
    fence = fence + 1,
    worker = :worker,
    leased_at = clock(),
    lease_until = clock() + :lease_s,
    changed_at = MAX(clock(), changed_at),
    started_at = MAX(clock(), changed_at)
WHERE id = :id AND state = 'QUEUED'
RETURNING *;

-- name: advance_virtual_time
UPDATE fair SET virtual_time = MAX(virtual_time, :fair_tag);

-- name: heartbeat
UPDATE jobs
SET leased_at = clock(), lease_until = clock() + :lease_s
WHERE worker = :worker
    AND (id, fence) IN (SELECT json_extract(value, '$.job_id'), json_extract(value, '$.fence') FROM json_each(:leases))
RETURNING id;

-- name: progress
UPDATE jobs SET progress = :progress
WHERE id = :id AND fence = :fence AND state = 'PROCESSING'
RETURNING cancel_requested;

-- name: complete
UPDATE jobs
SET state = 'COMPLETED',
    result = :result,
    worker = NULL,
    leased_at = NULL,
    lease_until = NULL,
    progress = NULL,
    changed_at = MAX(clock(), changed_at),
    ended_at = MAX(clock(), changed_at),
    expires_at = MAX(clock(), changed_at) + :retention_s,
    remaining_micro = (SELECT balance_micro FROM keys WHERE keys.id = jobs.key_id)
WHERE id = :id AND fence = :fence AND state = 'PROCESSING'
RETURNING *;

-- name: fail
UPDATE jobs
SET state = 'FAILED',
    failure = :failure,
    worker = NULL,
    leased_at = NULL,
    lease_until = NULL,
    progress = NULL,
    changed_at = MAX(clock(), changed_at),
    ended_at = MAX(clock(), changed_at),
    expires_at = MAX(clock(), changed_at) + :retention_s,
    remaining_micro = price_micro + (SELECT balance_micro FROM keys WHERE keys.id = jobs.key_id)
WHERE id = :id AND fence = :fence AND state = 'PROCESSING'
RETURNING *;

-- name: put_back
-- It keeps its fair tag, so it is before what was queued behind it.
UPDATE jobs
SET state = 'QUEUED',
    attempt = attempt - :uncounted,
    setback = :setback,
    worker = NULL,
    leased_at = NULL,
    lease_until = NULL,
    progress = NULL,
    started_at = NULL,
    changed_at = MAX(clock(), changed_at)
WHERE id = :id AND fence = :fence AND state = 'PROCESSING'
RETURNING *;

-- name: held_job
SELECT * FROM jobs WHERE id = :id AND fence = :fence AND state = 'PROCESSING';

-- name: held_jobs_of_worker
SELECT * FROM jobs WHERE state = 'PROCESSING' AND worker = :worker ORDER BY lease_until, seq;

-- name: held_jobs_overdue
SELECT * FROM jobs WHERE state = 'PROCESSING' AND lease_until <= clock() ORDER BY lease_until, seq;

-- name: shorten_leases
-- Where the clock was set back, a lease still ends its own length from now.
UPDATE jobs SET leased_at = clock(), lease_until = clock() + (lease_until - leased_at)
WHERE state = 'PROCESSING' AND leased_at > clock();

-- name: request_cancel
UPDATE jobs SET cancel_requested = 1, changed_at = MAX(clock(), changed_at)
WHERE id = :id AND state = 'PROCESSING'
RETURNING *;

-- name: cancel_queued
UPDATE jobs
SET state = 'FAILED',
    failure = :failure,
    cancel_requested = 1,
    changed_at = MAX(clock(), changed_at),
    ended_at = MAX(clock(), changed_at),
    expires_at = MAX(clock(), changed_at) + :retention_s,
    remaining_micro = price_micro + (SELECT balance_micro FROM keys WHERE keys.id = jobs.key_id)
WHERE id = :id AND state = 'QUEUED'
RETURNING *;

-- name: expired
SELECT id FROM jobs WHERE expires_at <= clock() ORDER BY expires_at LIMIT :limit;

-- name: forget
DELETE FROM jobs WHERE ended_at IS NOT NULL AND id IN (SELECT value FROM json_each(:ids));

-- name: known
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids));
