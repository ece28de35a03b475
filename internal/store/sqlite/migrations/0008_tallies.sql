-- Counts of named groups of jobs. rows counts those that are stored, ended ones included:
-- without any the tally goes.
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
