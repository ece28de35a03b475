-- A parked job that needs a resource waits in a lane of its key and its resource, so that each
-- resource has a first parked job of the key:
--   '&', the length of the tenant, ':', the tenant, the length of the key, ':', the key and the resource
--   '!', the length of the tenant, ':', the tenant and the resource: a parked suspect
-- The column extra of a damaged row is no JSON: its job stays where it is.
UPDATE jobs SET lane = '&' || length(CAST(tenant AS BLOB)) || ':' || tenant || length(CAST(key AS BLOB)) || ':' || key
    || json_extract(CAST(extra AS TEXT), '$.s')
  WHERE lane IS NOT NULL AND state = 3 AND (lane < '!' OR lane >= '"')
    AND iif(json_valid(CAST(extra AS TEXT)), json_extract(CAST(extra AS TEXT), '$.s'), NULL) <> '';
UPDATE jobs SET lane = '!' || length(CAST(tenant AS BLOB)) || ':' || tenant
    || iif(json_valid(CAST(extra AS TEXT)), coalesce(json_extract(CAST(extra AS TEXT), '$.s'), ''), '')
  WHERE lane >= '!' AND lane < '"';
-- The number of a parked job is the time at which it became ready, with a head start of an hour for
-- each step of priority.
UPDATE jobs SET turn = run_at + (priority - 5) * 3600000000 WHERE lane IS NOT NULL AND state = 3;
