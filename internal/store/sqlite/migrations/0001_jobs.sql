-- Times are microseconds since 1970 by the store's clock; states and kinds are the
-- numbers of internal/job. A job has a row number besides its id: rows of growing
-- numbers are appended densely, which those of other keys are not.

-- One narrow row a job. What may be large lives beside it.
CREATE TABLE jobs (
  n            INTEGER PRIMARY KEY,
  id           BLOB NOT NULL,
  tenant       TEXT NOT NULL,
  usr          TEXT NOT NULL,
  queue        TEXT NOT NULL,
  key          TEXT NOT NULL,
  priority     INTEGER NOT NULL,
  state        INTEGER NOT NULL,
  turn         INTEGER NOT NULL,
  attempt      INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  created      INTEGER NOT NULL,
  run_at       INTEGER NOT NULL,
  queue_by     INTEGER,          -- a waiting job expires at this time
  started      INTEGER,
  finished     INTEGER,
  cancel_at    INTEGER,          -- when a cancel was requested of the running job
  expires      INTEGER,          -- when the ended job may be pruned
  lease        BLOB,             -- the last token; void unless the job runs
  worker       TEXT,
  lease_until  INTEGER,
  -- Of an attempt that is over; while one runs the log itself tells.
  cursor       INTEGER NOT NULL DEFAULT 0,
  out_bytes    INTEGER NOT NULL DEFAULT 0,
  progress     BLOB,
  failure      BLOB,
  usage        BLOB,
  policy       BLOB NOT NULL,
  extra        BLOB,             -- JSON: metadata and ref
  idem         TEXT,             -- the idempotency key it was made with
  deleted      INTEGER NOT NULL DEFAULT 0  -- to be removed when its attempt ends
);

-- Every read asks for the owner: one index finds a job and lists an owner's.
CREATE UNIQUE INDEX jobs_id ON jobs (tenant, usr, id);

CREATE INDEX jobs_ready   ON jobs (queue, turn)   WHERE state = 2;
CREATE INDEX jobs_running ON jobs (state)         WHERE state = 4;
CREATE INDEX jobs_due     ON jobs (run_at)        WHERE state = 1;
CREATE INDEX jobs_expire  ON jobs (queue_by)      WHERE state <= 3 AND queue_by IS NOT NULL;
CREATE INDEX jobs_failed  ON jobs (tenant, usr, id) WHERE state = 6;

CREATE TABLE inputs  (n INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE results (n INTEGER PRIMARY KEY, content_type TEXT NOT NULL, body BLOB NOT NULL);

CREATE TABLE output (
  job     INTEGER NOT NULL, -- the job's row number
  seq     INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  kind    INTEGER NOT NULL,
  events  INTEGER NOT NULL,
  total   INTEGER NOT NULL, -- bytes of data up to and with this entry
  data    BLOB NOT NULL,
  PRIMARY KEY (job, seq)
) WITHOUT ROWID;

CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  usr    TEXT NOT NULL,
  key    TEXT NOT NULL,
  job    BLOB NOT NULL,
  hash   BLOB NOT NULL,
  until  INTEGER NOT NULL,
  PRIMARY KEY (tenant, usr, key)
) WITHOUT ROWID;

-- What outlives its job for a while: an idempotency key, and the memory of a
-- delete, so that a second one is no error.
CREATE TABLE leftovers (
  until  INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  usr    TEXT NOT NULL,
  key    TEXT NOT NULL
);
CREATE INDEX leftovers_until ON leftovers (until);
CREATE TABLE deleted (
  id     BLOB PRIMARY KEY,
  tenant TEXT NOT NULL,
  usr    TEXT NOT NULL,
  until  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX deleted_until ON deleted (until);

CREATE TABLE records (
  kind   TEXT NOT NULL,
  parent TEXT NOT NULL,
  id     TEXT NOT NULL,
  body   BLOB NOT NULL,
  PRIMARY KEY (kind, parent, id)
) WITHOUT ROWID;

-- The last batch that was applied: how the outcome of a failed commit is known.
CREATE TABLE applied (one INTEGER PRIMARY KEY CHECK (one = 1), batch BLOB NOT NULL);
INSERT INTO applied VALUES (1, x'');

CREATE TABLE queues (
  name      TEXT PRIMARY KEY,
  scheduled INTEGER NOT NULL,
  queued    INTEGER NOT NULL,
  parked    INTEGER NOT NULL,
  running   INTEGER NOT NULL,
  succeeded INTEGER NOT NULL,
  failed    INTEGER NOT NULL,
  cancelled INTEGER NOT NULL,
  expired   INTEGER NOT NULL,
  retried   INTEGER NOT NULL
) WITHOUT ROWID;
