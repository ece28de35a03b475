-- A side row's owner is in columns. Until here the only API that kept rows wrote it into
-- the parent: TENANT/USER or TENANT/USER/REST, each part escaped as in the path of a URL.
-- unescaped() is a function of the program.
CREATE TABLE owned_records (
  tenant TEXT NOT NULL,
  usr    TEXT NOT NULL,
  kind   TEXT NOT NULL,
  parent TEXT NOT NULL,
  id     TEXT NOT NULL,
  body   BLOB NOT NULL,
  PRIMARY KEY (tenant, usr, kind, parent, id)
) WITHOUT ROWID;
INSERT INTO owned_records
  SELECT unescaped(substr(parent, 1, slash - 1)),
         unescaped(CASE WHEN second = 0 THEN rest ELSE substr(rest, 1, second - 1) END),
         kind,
         CASE WHEN second = 0 THEN '' ELSE substr(rest, second + 1) END,
         id, body
  FROM (SELECT *, instr(rest, '/') AS second
        FROM (SELECT *, instr(parent, '/') AS slash, substr(parent, instr(parent, '/') + 1) AS rest FROM records));
DROP TABLE records;
ALTER TABLE owned_records RENAME TO records;
