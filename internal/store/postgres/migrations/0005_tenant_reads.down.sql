drop index jobs_id;
create unique index jobs_id on jobs (tenant, usr, id);
drop index ended_id;
create unique index ended_id on ended (tenant, usr, id); -- the newest, as in jobs
