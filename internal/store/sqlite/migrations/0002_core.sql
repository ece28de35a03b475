-- What limits, files, pauses and disconnect policies need of a job and of a queue.
ALTER TABLE jobs ADD COLUMN in_bytes INTEGER NOT NULL DEFAULT 0; -- of input and files: what a waiting job weighs
ALTER TABLE jobs ADD COLUMN files    INTEGER NOT NULL DEFAULT 0; -- how many; what they are is in extra
ALTER TABLE jobs ADD COLUMN abandon  INTEGER; -- ends when nobody asks for so long; NULL for never. Only to find the row by

ALTER TABLE queues ADD COLUMN waiting_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN paused        INTEGER NOT NULL DEFAULT 0;

-- What an opening counts of each key is read from indexes alone.
DROP INDEX jobs_ready;
DROP INDEX jobs_due;
CREATE INDEX jobs_ready   ON jobs (queue, turn, n, key, priority) WHERE state = 2;
CREATE INDEX jobs_due     ON jobs (run_at, queue, key)            WHERE state = 1;
CREATE INDEX jobs_parked  ON jobs (queue, key, turn, n, priority) WHERE state = 3;
CREATE INDEX jobs_files   ON jobs (n) WHERE files > 0;
CREATE INDEX jobs_abandon ON jobs (n) WHERE abandon IS NOT NULL AND state <= 4;
