-- The bytes of each owner's side rows, and of what deleted jobs leave for a while: see
-- owners.go, which has the same sizes.
CREATE TABLE owners (tenant TEXT NOT NULL, usr TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (tenant, usr)) WITHOUT ROWID;
INSERT INTO owners
  SELECT tenant, usr, sum(bytes) FROM (
    SELECT tenant, usr, length(body) + 100 AS bytes FROM records
    UNION ALL SELECT tenant, usr, 100 FROM deleted
    UNION ALL SELECT tenant, usr, 300 FROM leftovers)
  GROUP BY tenant, usr;
