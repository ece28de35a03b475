-- Columns for limits, files, pauses and disconnect policies. A waiting job is in its partial
-- indexes by columns that are NULL in all other jobs, so that the end of a job writes none of
-- these indexes.
ALTER TABLE jobs ADD COLUMN in_bytes INTEGER NOT NULL DEFAULT 0; -- of input and files: what a waiting job weighs
ALTER TABLE jobs ADD COLUMN files    INTEGER NOT NULL DEFAULT 0; -- how many; what they are is in extra
ALTER TABLE jobs ADD COLUMN due      INTEGER; -- of a scheduled job: when it becomes ready
ALTER TABLE jobs ADD COLUMN lane     TEXT;    -- of a ready job: '' in its queue's line, '+' and its key while it is parked

UPDATE jobs SET due = run_at WHERE state = 1;
UPDATE jobs SET lane = ''    WHERE state = 2;

DROP INDEX jobs_ready;
DROP INDEX jobs_due;
DROP INDEX jobs_expire;
-- An opening counts the jobs of each key from the first two alone.
CREATE INDEX jobs_line   ON jobs (queue, lane, turn, n, key, priority) WHERE lane IS NOT NULL;
CREATE INDEX jobs_due    ON jobs (due, queue, key) WHERE due IS NOT NULL;
CREATE INDEX jobs_expire ON jobs (queue_by) WHERE queue_by IS NOT NULL;

-- Which jobs run: a row has a bit for each of 64 consecutive row numbers. A batch writes the
-- few rows that it changed; an index would be written for each job.
CREATE TABLE running (n64 INTEGER PRIMARY KEY, bits INTEGER NOT NULL);
INSERT INTO running SELECT n >> 6, sum(1 << (n & 63)) FROM jobs WHERE state = 4 GROUP BY n >> 6;
DROP INDEX jobs_running;

-- Data that few jobs have is in other tables, where it costs the other jobs nothing.
CREATE TABLE with_files  (n INTEGER PRIMARY KEY, id BLOB NOT NULL);
CREATE TABLE abandonable (n INTEGER PRIMARY KEY); -- of unfinished jobs

ALTER TABLE queues ADD COLUMN waiting_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN paused        INTEGER NOT NULL DEFAULT 0;
