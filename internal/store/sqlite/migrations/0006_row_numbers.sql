-- The highest row numbers of jobs and tail that any batch has used. No number is reused, even
-- if its row was deleted. They are written with the id of the batch. Older versions reused the
-- number of a removed job while rows in tail still had it, so the first new number is above
-- all that any table has.
ALTER TABLE applied ADD COLUMN last_job  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE applied ADD COLUMN last_tail INTEGER NOT NULL DEFAULT 0;
UPDATE applied SET
  last_tail = (SELECT coalesce(max(n), 0) FROM tail),
  last_job = max(
    (SELECT coalesce(max(n), 0) FROM jobs),
    (SELECT coalesce(max(n), 0) FROM inputs),
    (SELECT coalesce(max(n), 0) FROM results),
    (SELECT coalesce(max(job), 0) FROM output),
    (SELECT coalesce(max(job), 0) FROM tail),
    (SELECT coalesce(max(n), 0) FROM with_files),
    (SELECT coalesce(max(n), 0) FROM presence),
    (SELECT coalesce(max(n64), 0) * 64 + 63 FROM running));
