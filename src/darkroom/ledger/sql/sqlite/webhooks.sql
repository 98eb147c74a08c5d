-- name: live_webhooks
SELECT COUNT(*) AS live FROM webhooks WHERE key_id = :key_id AND ended_at IS NULL;

-- name: clear_webhooks
-- Ended ones of which no message is kept any more.
DELETE FROM webhooks
WHERE key_id = :key_id AND ended_at IS NOT NULL AND id NOT IN (SELECT webhook_id FROM deliveries);

-- name: add_webhook
INSERT INTO webhooks (id, key_id, url, types, base, secret, created_at)
VALUES (:id, :key_id, :url, :types, :base, :secret, clock())
RETURNING *;

-- name: update_webhook
UPDATE webhooks SET url = :url, types = :types, base = :base
WHERE id = :id AND key_id = :key_id AND ended_at IS NULL
RETURNING *;

-- name: end_webhook
UPDATE webhooks SET ended_at = COALESCE(ended_at, MAX(clock(), created_at))
WHERE id = :id AND key_id = :key_id
RETURNING *;

-- name: drop_deliveries
UPDATE deliveries SET due_at = NULL, error = 'the webhook was made inactive'
WHERE webhook_id = :webhook_id AND due_at IS NOT NULL;

-- name: webhooks_of_key
SELECT * FROM webhooks WHERE key_id = :key_id ORDER BY seq DESC;

-- name: webhook_of_key
SELECT * FROM webhooks WHERE id = :id AND key_id = :key_id;

-- name: webhook
SELECT * FROM webhooks WHERE id = :id;

-- name: deliveries_of_webhook
SELECT * FROM deliveries WHERE webhook_id = :webhook_id ORDER BY seq DESC LIMIT :limit;

-- name: due_deliveries
-- Of every webhook that nothing is being sent to, what has been due longest. An expired job is not told of, and who
-- holds a revoked key, who can ask for no result any more, is told of none.
SELECT id FROM (
    SELECT
        deliveries.id,
        deliveries.due_at,
        deliveries.seq,
        ROW_NUMBER() OVER (
            PARTITION BY deliveries.webhook_id ORDER BY deliveries.due_at, deliveries.seq
        ) AS place
    FROM deliveries
    JOIN jobs ON jobs.id = deliveries.job_id
    JOIN keys ON keys.id = jobs.key_id
    WHERE deliveries.due_at <= clock()
        AND jobs.expires_at > clock()
        AND keys.revoked_at IS NULL
        AND deliveries.webhook_id NOT IN (SELECT value FROM json_each(:busy))
)
WHERE place = 1 ORDER BY due_at, seq LIMIT :limit;

-- name: claim_delivery
UPDATE deliveries SET attempt = attempt + 1, sent_at = clock(), due_at = clock() + :claim_s
WHERE id = :id AND due_at <= clock()
RETURNING *;

-- name: note_delivery
UPDATE deliveries SET status = :status, error = :error, due_at = clock() + :again_s
WHERE id = :id AND attempt = :attempt AND due_at IS NOT NULL;
