package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Check reads the whole database in one snapshot, and calls found for each defect: a job that
// cannot be read, data of a job that does not exist, sums and counts that do not fit the jobs.
// Servers may be using the database. An error means that it cannot be read.
func Check(ctx context.Context, db Beginner, found func(defect string)) error {
	return check(ctx, db, found, (*checker).run)
}

// check calls run with a checker that reads one snapshot.
func check(ctx context.Context, db Beginner, found func(defect string), run func(*checker)) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "set transaction isolation level repeatable read, read only", pgx.QueryExecModeExec); err != nil {
		return err
	}
	c := &checker{ctx: ctx, tx: tx, found: found}
	run(c)
	return c.err
}

// allJobs has the columns of both tables that checks need.
const allJobs = `(select n, id, tenant, usr, queue, state, tally, idem, in_bytes, bytes, cursor, out_bytes, files from jobs
	union all select n, id, tenant, usr, queue, state, tally, idem, in_bytes, bytes, cursor, out_bytes, files from ended) j`

// checks are statements that answer the defects of one kind, as texts.
var checks = []struct{ defect, sql string }{
	{"the job with the number %s is unfinished and ended", "select n::text from jobs join ended using (n) union select j.n::text from jobs j join ended using (tenant, usr, id)"},
	{"the job with the number %s is not in the table of its state", "select n::text from jobs where state not between 1 and 4 union all select n::text from ended where state not between 5 and 8"},
	{"the job with the number %s has a place in the line, a due time or a lease that does not fit its state", `select n::text from jobs
		where (lane is not null) <> (state in (2, 3)) or (due is not null) <> (state = 1) or (token is not null) <> (state = 4)
			or state = 4 and queue_by is not null or deleted and (state <> 4 or cancel_at is null)`},
	{"the job with the number %s has a number that was not used", "select n::text from " + allJobs + ` where n >
		(select greatest((select last_n from fold), (select max(last_n) from moves)))`},
	{"the job with the number %s has no input", "select n::text from " + allJobs + " where not exists (select from inputs i where i.n = j.n)"},
	{"an input belongs to no job: the number %s", orphans("inputs")},
	{"a result belongs to no job that succeeded: the number %s", "select n::text from results where not exists (select from ended e where e.n = results.n and state = 5)"},
	{"a list of files belongs to no job: the number %s", "select w.n::text from with_files w where not exists (select from " + allJobs + " where j.n = w.n and j.id = w.id and files > 0)"},
	{"the job with the number %s has files and is not listed", "select n::text from " + allJobs + " where files > 0 and not exists (select from with_files w where w.n = j.n)"},
	{"an abandon timeout belongs to no unfinished job: the number %s", `select p.n::text from presence p where not exists
		(select from jobs j where j.n = p.n and j.id = p.id and j.tenant = p.tenant and j.usr = p.usr and not deleted and cancel_at is null)`},
	{"the output of the job with the number %s has gaps, or other bytes than the job says", `select j.n::text from ` + allJobs + ` left join
		(select n, count(*) as entries, max(seq) as last, sum(` + plainData + `) as bytes, bool_and(total = sofar) as sums
			from (select n, seq, data, total, sum(` + plainData + `) over (partition by n order by seq) as sofar from output) o group by n) o using (n)
		where coalesce(o.entries, 0) <> j.cursor or coalesce(o.last, 0) <> j.cursor or coalesce(o.bytes, 0) <> j.out_bytes or not coalesce(o.sums, true)`},
	{"output belongs to no job: the number %s", orphans("output")},
	{"a row of the inbox was refused and is still there: %s", "select i.id from inbox i join inbox_refused r using (id, at)"},
	{"the idempotency key of the job with the number %s is missing", "select n::text from " + allJobs + ` where idem is not null and not exists
		(select from idempotency i where i.tenant = j.tenant and i.usr = j.usr and i.key = j.idem and i.job = j.id)`},
	{"an idempotency key belongs to no job and is not going to be deleted: %s", `select i.key from idempotency i where i.key <> '' and not exists
		(select from ` + allJobs + ` where i.tenant = j.tenant and i.usr = j.usr and i.key = j.idem and i.job = j.id)
		and not exists (select from leftovers l where l.tenant = i.tenant and l.usr = i.usr and l.key = i.key)`},
	{"the sum of what an owner keeps is wrong: %s", fmt.Sprintf(`select format('tenant "%%s", user "%%s", %%s bytes more are stored', tenant, usr, sum(bytes)) from (
		select tenant, usr, %s + %d as bytes from records union all select tenant, usr, %d from deleted
		union all select tenant, usr, %d from leftovers union all select tenant, usr, -bytes from owners) s
		group by tenant, usr having sum(bytes) <> 0`, plainBody, ops.RowBytes, ops.DeleteBytes, ops.LeftoverBytes)},
	{"the counts of a tally are wrong: %s", `select format('tenant "%s", user "%s", tally "%s"', tenant, usr, name) from tallies t full join
		(select tenant, usr, tally as name, count(*) as stored, count(*) filter (where state = 1) as s1, count(*) filter (where state = 2) as s2,
			count(*) filter (where state = 3) as s3, count(*) filter (where state = 4) as s4,
			coalesce(sum(in_bytes) filter (where state < 4), 0) as waiting from ` + allJobs + ` where tally is not null group by 1, 2, 3) w using (tenant, usr, name)
		where (t.rows, t.scheduled, t.queued, t.parked, t.running, t.waiting_bytes) is distinct from (w.stored, w.s1, w.s2, w.s3, w.s4, w.waiting)`},
	{"moves are missing: %s", `select format('%s rows from %s to %s, after the fold of %s', count(*), min(seq), max(seq), (select seq from fold)) from moves
		having count(*) <> max(seq) - min(seq) + 1 or max(seq) < (select seq from fold) or min(seq) > (select seq from fold) + 1`},
	{"the record of a delete has no time: the job %s", "select id::text from deleted where until <= 0"},
	{"a key of tokens is empty: the id %s", "select id::text from token_keys where octet_length(key) = 0"},
	{"the distance between ids and creations is missing: %s", "select 'the table created is empty' where not exists (select from created where apart >= 0)"},
	{"a move into the database has not ended: from %s", "select place from imports where state < 2"},
	{"the size is wrong: %s", fmt.Sprintf(`select format('%%s bytes, but the rows have %%s', stored, counted) from (select
		(select bytes from fold) + (select coalesce(sum(bytes), 0) from applied) as stored,
		(select coalesce(sum(bytes + out_bytes + %d * cursor), 0) from %s) + (select coalesce(sum(bytes), 0) from owners) as counted) s where stored <> counted`, entryOverhead, allJobs)},
}

// fileChecks are checks of the jobs' files, which other packages write.
var fileChecks = []struct{ defect, sql string }{
	{"the job with the number %s has other files than are stored", `select w.n::text from with_files w join ` + allJobs + ` using (n, id)
		where j.files <> (select count(*) from files f where f.job = w.id and state = 1)`},
	{"a file has other bytes than its size says: %s", `select format('the file "%s" of the job %s', name, job) from files where state = 1
		and size <> (select coalesce(sum(length(data)), 0) from file_chunks c where c.file = files.id)`},
	{"bytes belong to no file: the id %s", "select distinct file::text from file_chunks c where not exists (select from files f where f.id = c.file)"},
}

// CheckFiles compares the files in the database with the jobs, and calls found for each defect, as
// [Check].
func CheckFiles(ctx context.Context, db Beginner, found func(defect string)) error {
	return check(ctx, db, found, func(c *checker) {
		for _, k := range fileChecks {
			c.each(k.sql, func(r *record) { c.report(k.defect, r.text()) })
		}
	})
}

// orphans reads the numbers of rows that belong to no job.
func orphans(table string) string {
	return "select distinct o.n::text from " + table + " o where not exists (select from " + allJobs + " where j.n = o.n)"
}

// checker reads the database until the first error.
type checker struct {
	ctx   context.Context // of the call of Check
	tx    pgx.Tx
	found func(string)
	err   error
}

func (c *checker) run() {
	for _, k := range checks {
		c.each(k.sql, func(r *record) { c.report(k.defect, r.text()) })
	}
	c.jobs("jobs", unfinishedJob)
	c.jobs("ended", endedJob)
	c.queues()
}

func (c *checker) report(defect string, what ...any) { c.found(fmt.Sprintf(defect, what...)) }

func (c *checker) each(sql string, f func(*record)) {
	if c.err != nil {
		return
	}
	rows := c.tx.Conn().PgConn().ExecParams(c.ctx, sql, nil, nil, nil, binaryFormat)
	for rows.NextRow() {
		f(&record{values: rows.Values()})
	}
	_, c.err = rows.Close()
}

// jobs decodes each row of a table, and compares it with the columns that repeat a part of it.
func (c *checker) jobs(table, columns string) {
	c.each("select code, tally, resource, "+columns+" from "+table, func(r *record) {
		code, tally, resource := r.bytes(), r.text(), r.text()
		j := scanEnded(r).job
		wantCode := code == nil
		if j.Failure != nil {
			wantCode = code != nil && string(code) == j.Failure.Code
		}
		switch {
		case j.Damaged:
			c.report("the record of the job %s is damaged", j.ID)
		case !wantCode || tally != j.Tally || resource != j.Resource:
			c.report("the columns code, tally and resource of the job %s do not fit its record", j.ID)
		}
	})
}

// queues compares the counts of queues with the jobs.
func (c *checker) queues() {
	counts := map[string]job.Counts{}
	c.each(loadQueues.sql, func(r *record) {
		n := scanCounts(r)
		counts[r.text()] = n
	})
	c.each(loadMoves.sql, func(r *record) {
		m := scanMove(r)
		if err := m.eachChange(func(change *ops.Change) { countChange(counts, change) }); err != nil {
			c.report("the move %d is damaged: %v", m.seq, err)
		}
	})
	stored := map[string]job.Counts{}
	c.each("select queue, state, count(*), coalesce(sum(in_bytes), 0)::bigint from jobs group by 1, 2", func(r *record) {
		queue, state, jobs, bytes := r.text(), job.State(r.int()), r.int(), r.int()
		n := stored[queue]
		for range jobs {
			n.Move(0, state, 0)
		}
		if state.Waiting() {
			n.WaitingBytes += bytes
		}
		stored[queue] = n
	})
	for _, queue := range slices.Sorted(maps.Keys(stored)) {
		if _, known := counts[queue]; !known {
			counts[queue] = job.Counts{}
		}
	}
	for _, queue := range slices.Sorted(maps.Keys(counts)) {
		n, want := counts[queue], stored[queue]
		got := job.Counts{Scheduled: n.Scheduled, Queued: n.Queued, Parked: n.Parked, Running: n.Running, WaitingBytes: n.WaitingBytes}
		if c.err == nil && got != want {
			c.report("the queue %q has the counts %+v, but the jobs %+v", queue, got, want)
		}
	}
}
