-- compatible with: 1
--
-- Times are microseconds since 1970 by the store's clock; 0 or null is no time. States and kinds
-- are the numbers of internal/job. Text sorts by its bytes. All objects are in the current schema.
--
-- A job has a number n besides its id: numbers grow in the order of the submits and are never
-- used again, so new rows are appended densely.

-- Unfinished jobs only. A row changes often, and its indexes only at a claim: an update that
-- changes no indexed column stays in its page (HOT), which the free space of a page is for.
--
-- A job is found by (tenant, usr, id), a running one also by id or token. A scheduled job has
-- due, a ready or parked one has lane and turn; all three are null or 0 in other jobs. queue_by
-- is set until the first claim. lease columns from token on are meaningful in state 4 only; a
-- job that waits again sets token, process and output_at to null.
create table jobs (
  n            bigint   not null primary key,
  id           uuid     not null,
  tenant       text     collate "C" not null,
  usr          text     collate "C" not null,
  queue        text     collate "C" not null,
  key          text     collate "C" not null,
  resource     text     collate "C" not null default '',
  tally        text     collate "C",           -- null for none
  idem         text     collate "C",           -- the idempotency key it was made with; null for none
  priority     integer  not null,
  state        smallint not null,
  attempt      integer  not null default 0,
  max_attempts integer  not null,
  losses       integer  not null default 0,
  cleared      integer  not null default 0,
  revision     bigint   not null,
  turn         bigint   not null default 0,
  lane         text     collate "C",
  due          bigint,
  queue_by     bigint,
  created      bigint   not null,
  run_at       bigint   not null,
  started      bigint,
  cancel_at    bigint,
  cursor       bigint   not null default 0,    -- the number of the last entry in output
  out_bytes    bigint   not null default 0,    -- the data of all entries
  in_bytes     bigint   not null default 0,    -- see job.Job.InputBytes
  bytes        bigint   not null default 0,    -- what Size counts for the job besides its output; see size.go
  files        integer  not null default 0,    -- how many
  deleted      boolean  not null default false, -- a running job that is removed when its attempt ends
  progress     bytea,
  failure      bytea,
  code         text     collate "C",           -- of failure
  usage        bytea,
  policy       bytea    not null,
  extra        bytea,

  token         uuid,
  process       uuid,
  worker        text    collate "C" not null default '',
  lease_for     bigint  not null default 0,    -- milliseconds
  lease_until   bigint  not null default 0,
  lease_used    boolean not null default false,
  attempt_at    bigint  not null default 0,    -- the start of the attempt
  output_at     bigint,                        -- see store.Running.LastOutputAt
  start_cursor  bigint  not null default 0,    -- cursor and out_bytes at the start of the attempt
  earlier_bytes bigint  not null default 0,
  has_output    boolean not null default false
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.1);

-- Filters of lists. The states are groups of one index, so that any filter reads the jobs of
-- each group in the order of their ids.
create index jobs_listed on jobs (tenant, usr, queue, state, id);
create index jobs_keyed  on jobs (tenant, usr, key, queue, state, id) where key <> '';
create index jobs_coded  on jobs (tenant, usr, code, queue, state, id) where code is not null;
-- Every read asks for the owner: one index finds a job and lists an owner's. It is made after the
-- ones above: while a table is empty its indexes cost the same, and the planner takes the newest.
create unique index jobs_id on jobs (tenant, usr, id);
-- By id and not by the end of the lease, which changes with each renewal.
create index jobs_running on jobs (id) where state = 4;
create unique index jobs_token on jobs (token) where token is not null;
-- An opening reads the waiting jobs from these two indexes alone.
create index jobs_line   on jobs (queue, lane, turn, n) include (key, priority, run_at) where lane is not null;
create index jobs_due    on jobs (due, n) include (queue, key, tenant, resource) where due is not null;
create index jobs_expire on jobs (queue_by, n) where queue_by is not null;

-- Jobs that have ended. An end moves the row in one statement, a retry moves it back: a job is
-- in exactly one of the two tables. Every column that both tables have is the same.
create table ended (
  n            bigint   not null primary key, -- a prune reads in this order
  id           uuid     not null,
  tenant       text     collate "C" not null,
  usr          text     collate "C" not null,
  queue        text     collate "C" not null,
  key          text     collate "C" not null,
  resource     text     collate "C" not null default '',
  tally        text     collate "C",
  idem         text     collate "C",
  priority     integer  not null,
  state        smallint not null,
  attempt      integer  not null,
  max_attempts integer  not null,
  losses       integer  not null,
  cleared      integer  not null,
  revision     bigint   not null,
  created      bigint   not null,
  run_at       bigint   not null,
  started      bigint,
  finished     bigint   not null,
  cancel_at    bigint,
  expires      bigint   not null,
  cursor       bigint   not null,
  out_bytes    bigint   not null,
  in_bytes     bigint   not null,
  bytes        bigint   not null,             -- with the result
  files        integer  not null,
  progress     bytea,
  failure      bytea,
  code         text     collate "C",
  usage        bytea,
  policy       bytea    not null,
  extra        bytea
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
create index ended_listed on ended (tenant, usr, queue, state, id);
create index ended_keyed  on ended (tenant, usr, key, queue, state, id) where key <> '';
create index ended_coded  on ended (tenant, usr, code, queue, state, id) where code is not null;
create unique index ended_id on ended (tenant, usr, id); -- the newest, as in jobs

-- Bodies may be large; moves of a job must not copy them. Every job has an input. A part of a
-- result or of an entry is read alone, which a compressed value does not allow.
create table inputs  (n bigint not null primary key, body bytea not null);
create table results (n bigint not null primary key, content_type text collate "C" not null, body bytea not null);
create table output (
  n       bigint   not null,
  seq     bigint   not null,
  attempt integer  not null,
  kind    smallint not null,
  events  integer  not null,
  total   bigint   not null,                  -- bytes of data up to and with this entry
  data    bytea    not null,
  primary key (n, seq)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
do $$ begin
  alter table inputs alter column body set compression lz4;
exception when feature_not_supported then null; -- a server that was built without lz4
end $$;
alter table results alter column body set storage external;
alter table output  alter column data set storage external;
-- Entries that begin an attempt: the text of a job's last attempt follows the last one.
create index output_attempts on output (n, seq) where kind = 5;

-- Data that few jobs have.
create table with_files (n bigint not null primary key, id uuid not null);
-- Unfinished jobs with an abandon timeout, which ends at until if no client is present. The row
-- is deleted when the job ends, is deleted or is asked to stop.
create table presence (
  id     uuid   not null primary key,
  n      bigint not null,
  tenant text   collate "C" not null,
  usr    text   collate "C" not null,
  after  bigint not null,                     -- the timeout, in microseconds
  until  bigint not null
) with (fillfactor = 80);
create index presence_owner on presence (tenant, usr);
create index presence_until on presence (until, id);

create table idempotency (
  tenant text   collate "C" not null,
  usr    text   collate "C" not null,
  key    text   collate "C" not null,
  job    uuid   not null,
  hash   bytea  not null,                     -- 32 bytes
  until  bigint not null,
  primary key (tenant, usr, key)
);
-- What outlives its job for a while: its idempotency key, and the record of its delete.
create table leftovers (
  n      bigint generated always as identity primary key,
  until  bigint not null,
  tenant text   collate "C" not null,
  usr    text   collate "C" not null,
  key    text   collate "C" not null
);
create index leftovers_until on leftovers (until);
create table deleted (
  id     uuid   not null primary key,
  tenant text   collate "C" not null,
  usr    text   collate "C" not null,
  until  bigint not null
);
create index deleted_until on deleted (until);

-- Side rows; see store.Row.
create table records (
  tenant text  collate "C" not null,
  usr    text  collate "C" not null,
  kind   text  collate "C" not null,
  parent text  collate "C" not null,
  id     text  collate "C" not null,
  body   bytea not null,
  primary key (tenant, usr, kind, parent, id)
);
-- The bytes that an owner keeps besides jobs. An owner that keeps nothing has no row.
create table owners (
  tenant text   collate "C" not null,
  usr    text   collate "C" not null,
  bytes  bigint not null,
  primary key (tenant, usr)
) with (fillfactor = 80);

-- Counts of named groups of jobs; see job.Job.Tally. The column rows counts the stored jobs,
-- ended ones included. A tally without stored jobs is deleted.
create table tallies (
  tenant        text   collate "C" not null,
  usr           text   collate "C" not null,
  name          text   collate "C" not null,
  rows          bigint not null,
  scheduled     bigint not null,
  queued        bigint not null,
  parked        bigint not null,
  running       bigint not null,
  succeeded     bigint not null,
  failed        bigint not null,
  cancelled     bigint not null,
  expired       bigint not null,
  retried       bigint not null,
  waiting_bytes bigint not null,
  primary key (tenant, usr, name)
) with (fillfactor = 80);

-- The changes of the queues' counts and turns that each batch made, for the memory of the other
-- processes. seq has no gaps. last_n is the highest number n of a job that was used so far.
create table moves (
  seq    bigint not null primary key,
  at     bigint not null,
  last_n bigint not null,
  data   bytea  not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- The counts of queues as of the move with the number fold.seq, and the bytes that Size counts,
-- without those in applied. A deleted row of applied adds its bytes to fold.bytes.
create table queues (
  name          text    collate "C" not null primary key,
  scheduled     bigint  not null,
  queued        bigint  not null,
  parked        bigint  not null,
  running       bigint  not null,
  succeeded     bigint  not null,
  failed        bigint  not null,
  cancelled     bigint  not null,
  expired       bigint  not null,
  retried       bigint  not null,
  waiting_bytes bigint  not null,
  paused        boolean not null
) with (fillfactor = 50);
create table fold (
  one    boolean not null primary key default true check (one),
  seq    bigint  not null,
  last_n bigint  not null,
  bytes  bigint  not null
);
insert into fold (seq, last_n, bytes) values (0, 0, 0);

-- The ids of batches, for the outcome of a commit whose answer was lost. bytes is by how much
-- the batch changed what Size counts: of jobs and of what owners keep.
create table applied (
  batch uuid   not null primary key,
  at    bigint not null,
  bytes bigint not null default 0
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- The largest difference between the time in an id and the creation of its job, in microseconds:
-- an id is made before the job's files have arrived. Lists by time read that much further.
create table created (one boolean not null primary key default true check (one), apart bigint not null);
insert into created (apart) values (3600000000);
