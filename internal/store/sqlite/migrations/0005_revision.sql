-- How often a job's state has changed. It tells which of two reads of a job is later.
ALTER TABLE jobs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
