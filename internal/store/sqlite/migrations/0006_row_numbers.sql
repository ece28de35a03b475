-- The highest numbers that were ever given to a row of jobs and of tail, by any batch: no
-- number is given again, although its row is gone. They are written with the name of the
-- batch. Older versions gave the number of a removed job to the next one, whose rows in
-- tail are still there; so no number in use anywhere is given again.
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
