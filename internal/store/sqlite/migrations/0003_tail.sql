-- Output of all running jobs is written here first, in the order in which it arrives. Once a
-- job has enough of it, the entries go to the job's log as one row. Such a row of the log has
-- kind 0, and its seq is that of its last entry.
CREATE TABLE tail (
  n        INTEGER PRIMARY KEY,
  job      INTEGER NOT NULL, -- the job's row number
  seq      INTEGER NOT NULL, -- of the last entry in data
  total    INTEGER NOT NULL, -- bytes of data that the job said up to that one
  progress BLOB,             -- when it was said with these entries
  data     BLOB NOT NULL
);
