-- The index by which a job is found has the user last: a key that reads its whole tenant finds a job
-- by tenant and id, and lists the tenant's jobs in the order of ids. It is one index as before, so no
-- write costs more. A list of one user's jobs merges the groups of jobs_listed.
DROP INDEX jobs_id;
CREATE UNIQUE INDEX jobs_id ON jobs (tenant, id, usr);
