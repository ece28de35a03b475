-- The largest difference between the time in an id and the creation of its job, in
-- microseconds: an id is made before the job's files have arrived. Lists by time read that
-- much further.
CREATE TABLE created (one INTEGER PRIMARY KEY CHECK (one = 1), apart INTEGER NOT NULL);
INSERT INTO created
  SELECT 1, max(3600000000, coalesce(max(abs(created - (('0x' || hex(substr(jobs.id, 1, 6))) ->> '$') * 1000)), 0))
  FROM with_files JOIN jobs USING (n);
