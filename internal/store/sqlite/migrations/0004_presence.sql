-- Unfinished jobs with an abandon timeout, and when it ends if no client is present. The
-- store's clock decides, whichever process asks. The join drops rows of removed jobs.
CREATE TABLE presence (
  id      BLOB PRIMARY KEY,
  n       INTEGER NOT NULL, -- the job's row number
  tenant  TEXT NOT NULL,
  usr     TEXT NOT NULL,
  after   INTEGER NOT NULL, -- the timeout; 0 until the next opening has read the job's policy
  until   INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO presence
  SELECT id, n, tenant, usr, 0, 0 FROM abandonable JOIN jobs USING (n) WHERE state <= 4 AND deleted = 0 AND cancel_at IS NULL;
DROP TABLE abandonable;
CREATE INDEX presence_owner ON presence (tenant, usr);
CREATE INDEX presence_until ON presence (until, id);
