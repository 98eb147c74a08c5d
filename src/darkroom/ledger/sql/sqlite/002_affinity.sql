-- What the scheduler asks of a job beside its fair tag (see scheduler.py), and how long its LoRAs took to resolve.

-- NULL: accepted before this column; no worker is preferred for it.
ALTER TABLE jobs ADD COLUMN lora_set TEXT;
ALTER TABLE jobs ADD COLUMN overtaken INTEGER NOT NULL DEFAULT 0 CHECK (overtaken >= 0);
ALTER TABLE jobs ADD COLUMN resolve_s REAL CHECK (resolve_s >= 0);

DROP TRIGGER jobs_keep_what_was_asked;

CREATE TRIGGER jobs_keep_what_was_asked
BEFORE UPDATE OF seq, id, key_id, slug, edit, price_micro, work, fair_tag, lora_set, resolve_s, created_at ON jobs
BEGIN
    SELECT RAISE(ABORT, 'what was accepted does not change');
END;

CREATE TRIGGER jobs_are_overtaken_in_the_queue BEFORE UPDATE OF overtaken ON jobs
WHEN OLD.state <> 'QUEUED' OR NEW.overtaken < OLD.overtaken
BEGIN
    SELECT RAISE(ABORT, 'only a queued job is overtaken, and what was counted stays');
END;
