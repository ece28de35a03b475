-- How often a job's worker was lost, and how many of those losses came before an
-- attempt that ended in another way. What ran before this counted them as failures.
ALTER TABLE jobs ADD COLUMN losses  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;
