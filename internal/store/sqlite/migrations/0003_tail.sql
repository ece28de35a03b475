-- What running jobs say is written here first, in the order in which it is said by
-- all of them, and goes into a job's log, many entries in one row, when that is worth a
-- row. A row of the log whose kind is 0 holds such entries; its seq is that of the last.
CREATE TABLE tail (
  n        INTEGER PRIMARY KEY,
  job      INTEGER NOT NULL, -- the job's row number
  seq      INTEGER NOT NULL, -- of the last entry in data
  total    INTEGER NOT NULL, -- bytes of data that the job said up to that one
  progress BLOB,             -- when it was said with these entries
  data     BLOB NOT NULL
);
