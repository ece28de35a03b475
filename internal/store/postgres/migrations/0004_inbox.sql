-- compatible with: 1
--
-- Jobs that other programs insert in transactions of their own; see docs/inbox.md. A server makes
-- a job of each row and deletes the row. These two tables are for people and other programs, so
-- times are timestamps and ids have their public form.

-- job_id makes a job's id: a version 7 UUID in Crockford's base 32, as internal/job does.
create function job_id() returns text language sql volatile parallel safe set search_path = pg_catalog as $$
  select 'job_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', substring(bits from 5 * digit + 1 for 5)::integer + 1, 1), '' order by digit)
  from (
    select ('x' || encode(set_byte(raw, 6, get_byte(raw, 6) & 15 | 112), 'hex'))::bit(128) || B'00' as bits
    from (
      select overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1) as raw
    ) random
  ) id, generate_series(0, 25) digit
$$;

-- key and bytes are of body. A text of json is kept as it is. jsonb would write a number of 9 digits as one of 131,072, and
-- would drop the second of two equal names, which a server refuses.
create table inbox (
  n           bigint generated always as identity primary key,
  id          text   collate "C" not null default job_id() unique check (id ~ '^job_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$'),
  tenant      text   collate "C" not null default '',
  usr         text   collate "C" not null default 'local',
  queue       text   collate "C" not null,
  body        json   not null,
  idempotency text   collate "C",
  at          timestamptz not null default clock_timestamp(),
  key         text   collate "C" not null generated always as (coalesce(body ->> 'key', '')) stored,
  bytes       bigint not null generated always as (octet_length(body::text)) stored
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
create index inbox_queue on inbox (queue, n);

-- Rows that are no jobs of their own, for seven days. body is null if it was too large. job is
-- the job that the row's idempotency key had made before.
create table inbox_refused (
  n           bigint generated always as identity primary key,
  id          text   collate "C" not null,
  tenant      text   collate "C" not null,
  usr         text   collate "C" not null,
  queue       text   collate "C" not null,
  body        json,
  idempotency text   collate "C",
  at          timestamptz not null,
  refused     timestamptz not null default clock_timestamp(),
  code        text   collate "C" not null,
  reason      text   not null,
  job         text   collate "C"
);
create index inbox_refused_id on inbox_refused (id);
do $$ begin
  alter table inbox         alter column body set compression lz4;
  alter table inbox_refused alter column body set compression lz4;
exception when feature_not_supported then null;
end $$;
