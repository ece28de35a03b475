-- compatible with: 1
--
-- The index by which a job is found has the user last: a key that reads its whole tenant finds a job
-- by tenant and id, and lists the tenant's jobs in the order of ids. It is one index as before, so no
-- write costs more. A list of one user's jobs merges the groups of jobs_listed and ended_listed.
drop index jobs_id;
create unique index jobs_id on jobs (tenant, id, usr);
drop index ended_id;
create unique index ended_id on ended (tenant, id, usr); -- the newest, as in jobs
