-- Indexes for the filters of lists. Running jobs are in none of them: a list finds those in
-- the table running. So a job that is leased at once writes one entry, when it ends.
-- failure_code() is a function of the program.
ALTER TABLE jobs ADD COLUMN code TEXT; -- of the last failure
UPDATE jobs SET code = failure_code(failure) WHERE failure IS NOT NULL;
DROP INDEX jobs_failed;
CREATE INDEX jobs_listed ON jobs (tenant, usr, queue, state, id) WHERE state <> 4;
CREATE INDEX jobs_keyed  ON jobs (tenant, usr, key, queue, state, id) WHERE state <> 4 AND key <> '';
CREATE INDEX jobs_coded  ON jobs (tenant, usr, code, queue, state, id) WHERE state <> 4 AND code IS NOT NULL;
