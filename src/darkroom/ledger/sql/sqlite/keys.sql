-- name: create_key
INSERT INTO keys (id, name, digest, granted_micro, balance_micro, rate_per_minute, models, created_at)
VALUES (:id, :name, :digest, :granted_micro, :granted_micro, :rate_per_minute, :models, clock())
RETURNING *;

-- name: all_keys
SELECT * FROM keys ORDER BY seq;

-- name: live_key_named
SELECT * FROM keys WHERE name = :name AND revoked_at IS NULL;

-- name: live_key_of_digest
SELECT * FROM keys WHERE digest = :digest AND revoked_at IS NULL;

-- name: key_now
SELECT *, clock() AS now FROM keys WHERE id = :id;

-- name: revoke_key
UPDATE keys SET revoked_at = MAX(clock(), created_at) WHERE name = :name AND revoked_at IS NULL RETURNING *;

-- name: note_submission
UPDATE keys SET arrival_at = :arrival_at, finish_tag = :finish_tag WHERE id = :id;

-- name: take_back_tag
-- The work of a job that was never done is not counted against its key.
UPDATE keys SET finish_tag = MAX(0, finish_tag - :work) WHERE id = :id;
