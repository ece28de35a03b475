-- How far the time in an id ever was from when its job was stored, in microseconds: an
-- id is made before the job's files have come in. Lists by time look that much further.
CREATE TABLE created (one INTEGER PRIMARY KEY CHECK (one = 1), apart INTEGER NOT NULL);
INSERT INTO created
  SELECT 1, max(3600000000, coalesce(max(abs(created - (('0x' || hex(substr(jobs.id, 1, 6))) ->> '$') * 1000)), 0))
  FROM with_files JOIN jobs USING (n);
