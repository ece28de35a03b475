-- Rows that are no jobs yet would be lost.
do $$ begin
  if exists (select from inbox) then
    raise exception 'the inbox has rows that are no jobs yet: start a server, and wait until it has taken them';
  end if;
end $$;
drop table inbox_refused;
drop table inbox;
drop function job_id();
