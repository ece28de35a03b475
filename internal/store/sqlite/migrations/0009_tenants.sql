-- A key belongs to a tenant: two tenants that use the same name share nothing. A queued job
-- waits in the lane of its tenant, a parked one in a lane of its key:
--   ''  a queued job of the tenant ''        '=' and the tenant: a queued job of another
--   '+' and the key: a parked job of ''      '-', the length of the tenant, ':', the tenant and the key: of another
UPDATE jobs SET lane = CASE state WHEN 2 THEN '=' || tenant ELSE '-' || length(CAST(tenant AS BLOB)) || ':' || tenant || key END
  WHERE lane IS NOT NULL AND tenant <> '' AND (SELECT max(tenant) FROM jobs) <> '';

-- An opening counts the jobs of each key, and since when they are ready, from these alone.
DROP INDEX jobs_line;
DROP INDEX jobs_due;
CREATE INDEX jobs_line ON jobs (queue, lane, turn, n, key, priority, run_at) WHERE lane IS NOT NULL;
CREATE INDEX jobs_due  ON jobs (due, queue, key, tenant) WHERE due IS NOT NULL;
