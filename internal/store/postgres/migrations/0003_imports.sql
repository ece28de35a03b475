-- compatible with: 1
--
-- The move of another store's jobs into this database: at most one row. While state is 0 or 1 no
-- server may use the database. 0: rows are being copied. 1: all are copied. 2: it is complete.
-- source identifies the content that is moved, and place says where it was. progress says how far
-- the move is, and has the sums of the rows that were copied.
create table imports (
  one      boolean  not null primary key default true check (one),
  source   bytea    not null,
  place    text     not null,
  state    smallint not null,
  progress bytea    not null,
  began    bigint   not null,
  ended    bigint
);
