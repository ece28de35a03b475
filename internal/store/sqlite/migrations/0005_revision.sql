-- How often a job's state has changed: of two looks at a job, which one is later.
ALTER TABLE jobs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
