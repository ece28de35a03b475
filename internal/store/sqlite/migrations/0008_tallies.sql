-- Counts of named groups of jobs. The column rows counts the stored jobs, ended ones included.
-- A tally without stored jobs is deleted.
CREATE TABLE tallies (
  tenant        TEXT NOT NULL,
  usr           TEXT NOT NULL,
  name          TEXT NOT NULL,
  rows          INTEGER NOT NULL,
  scheduled     INTEGER NOT NULL,
  queued        INTEGER NOT NULL,
  parked        INTEGER NOT NULL,
  running       INTEGER NOT NULL,
  succeeded     INTEGER NOT NULL,
  failed        INTEGER NOT NULL,
  cancelled     INTEGER NOT NULL,
  expired       INTEGER NOT NULL,
  retried       INTEGER NOT NULL,
  waiting_bytes INTEGER NOT NULL,
  PRIMARY KEY (tenant, usr, name)
) WITHOUT ROWID;
