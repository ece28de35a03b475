-- How often a job's worker was lost, and how many of these losses came before an attempt that
-- ended in another way. Older versions counted losses as failures.
ALTER TABLE jobs ADD COLUMN losses  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;
