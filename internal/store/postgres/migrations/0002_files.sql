-- compatible with: 1
--
-- The files of jobs. A row is one file. Its bytes are in file_chunks, 262144 bytes a row, fewer
-- in the last one; n counts from 0. An empty file has no chunk.
--
-- state 0: the file is being received. 1: all files of the job have been received; the job is
-- stored, or about to be. 2: the file is being removed, and nobody may read it or add to it.
-- at is when the row was last written; files of a job that does not exist are removed by it.
create table files (
  id     uuid     not null primary key,
  job    uuid     not null,
  name   text     collate "C" not null,
  state  smallint not null,
  size   bigint   not null default 0,         -- set with state 1
  sha256 bytea,                               -- set with state 1
  at     bigint   not null
) with (fillfactor = 80);
create unique index files_job on files (job, name);

create table file_chunks (
  file uuid    not null,
  n    integer not null,
  data bytea   not null,
  primary key (file, n)
);
-- Files are seldom compressible, and a compressed chunk would cost the writer a try.
alter table file_chunks alter column data set storage external;

-- The keys that seal the tokens of pages. The one with the highest id seals; all of them open.
create table token_keys (
  id      bigint generated always as identity primary key,
  key     bytea  not null,
  created bigint not null
);
