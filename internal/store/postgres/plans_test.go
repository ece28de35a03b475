package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/pgtest"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
)

// manyJobs fills the tables as 100,000 jobs do, of two owners, three queues and a hundred keys:
// half of them ended, and of the others a tenth runs. Each has output.
const manyJobs = `
insert into jobs (n, id, tenant, usr, queue, key, priority, state, max_attempts, revision, created, run_at, policy, lane, turn, due, queue_by, token, process, lease_until, code, cursor, out_bytes)
	select n, overlay(gen_random_uuid()::text placing lpad(to_hex(n), 8, '0') from 1)::uuid, 't', 'u' || n % 2, 'q' || n % 3, 'k' || n % 100, 5, state, 3, 1, n, n, 'POLICY',
		case when state in (2, 3) then '=t' end, n, case when state = 1 then n end, case when state < 4 then n end,
		case when state = 4 then gen_random_uuid() end, case when state = 4 then gen_random_uuid() end, n, case when n % 50 = 0 then 'c' || n % 7 end, 10, 100
	from (select n, case when n % 10 = 0 then 4 else 1 + n % 3 end as state from generate_series(1, JOBS / 2) n) s;
insert into ended (n, id, tenant, usr, queue, key, priority, state, attempt, max_attempts, losses, cleared, revision, created, run_at, finished, expires, cursor, out_bytes, in_bytes, bytes, files, policy, code)
	select n, overlay(gen_random_uuid()::text placing lpad(to_hex(n), 8, '0') from 1)::uuid, 't', 'u' || n % 2, 'q' || n % 3, 'k' || n % 100, 5, 5 + n % 4, 1, 3, 0, 0, 2, n, n, n, n, 10, 100, 5, 5, 0, 'POLICY',
		case when n % 4 = 1 then 'c' || n % 7 end
	from generate_series(JOBS / 2 + 1, JOBS) n;
insert into inputs select n, 'input' from generate_series(1, JOBS) n;
insert into results select n, 'a/b', 'result' from generate_series(1, JOBS, 5) n;
insert into output select n, seq, 1, case when seq = 1 then 5 else 1 end, 1, seq * 10, '0123456789' from generate_series(1, JOBS, 10) n, generate_series(1, 10) seq;
insert into with_files select n, id from jobs where n % 10 = 0;
insert into presence select id, n, tenant, usr, 1000, n from jobs where n % 5 = 0;
insert into idempotency select 't', 'u', 'key' || n, gen_random_uuid(), '', 0 from generate_series(1, JOBS / 10) n;
insert into records select 't', 'u', 'kind', 'p' || n % 1000, n::text, 'body' from generate_series(1, JOBS / 2) n;
insert into tallies select 't', 'u', n::text, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0 from generate_series(1, JOBS / 10) n;
`

// withManyJobs makes a database with n jobs, without statistics.
func withManyJobs(tb testing.TB, n int) pgtest.Database {
	tb.Helper()
	d := newDatabase(tb)
	policy := fmt.Sprintf(`\x%x`, codec.EncodePolicy(job.Policy{Keep: job.DefaultKeep}))
	sql := strings.NewReplacer("JOBS", strconv.Itoa(n), "POLICY", policy).Replace(manyJobs)
	if _, err := d.Connect(tb).Exec(context.Background(), sql); err != nil {
		tb.Fatal(err)
	}
	return d
}

// usualReads are the statements that clients and the engine cause all the time.
func usualReads() []*statement {
	all := []*statement{
		readJob, readInput, readResult, readTurn, readPosition, readIdempotent, readOutput, readText, readNextDue, readWithFiles, readAbandonable,
		readVersions, readAllRunning, readLapsed, readCancelled, readRunningOf, readLeases, readRow, readRowsUp, readRowsDown, readRowsLast, readTenant, readTally, readListed,
	}
	for _, x := range []*listIndex{listOfTenant, listByQueue, listByKey, listByCode} {
		all = append(all, x.jobs.fill, x.ended.fill)
		if x != listOfTenant {
			all = append(all, x.jobs.queues, x.ended.queues)
		}
	}
	return all
}

// explain returns the plan that a prepared statement has for all parameters.
func explain(t *testing.T, conn *pgx.Conn, s *statement) string {
	t.Helper()
	d, err := conn.PgConn().Prepare(t.Context(), s.name, s.sql, nil)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	nulls := strings.Join(slices.Repeat([]string{"null"}, len(d.ParamOIDs)), ", ")
	if nulls != "" {
		nulls = "(" + nulls + ")"
	}
	rows, err := conn.Query(t.Context(), "explain execute "+s.name+nulls, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return strings.Join(lines, "\n")
}

// The plan that a statement gets while its table is empty is kept, and must find a job by its id.
func TestPlanOfEmptyTableFindsJobByID(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).Connect(t)
	if _, err := conn.Exec(t.Context(), "set plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*statement{readJob, readInput, readResult, readTurn, readVersions} {
		if plan := explain(t, conn, s); !strings.Contains(plan, "jobs_id") {
			t.Errorf("%s reads more than one job:\n%s", s.name, plan)
		}
	}
}

func TestUsualReadsUseIndexes(t *testing.T) {
	t.Parallel()
	jobs := 100_000
	if testing.Short() {
		jobs = 10_000
	}
	conn := withManyJobs(t, jobs).Connect(t)
	if _, err := conn.Exec(t.Context(), "set plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		for _, s := range usualReads() {
			plan := explain(t, conn, s)
			if strings.Contains(plan, "Seq Scan") {
				t.Errorf("%s %s scans a table:\n%s", when, s.name, plan)
			}
		}
		if _, err := conn.Exec(t.Context(), "deallocate all"); err != nil {
			t.Fatal(err)
		}
	}
	check("without statistics,")
	if _, err := conn.Exec(t.Context(), "analyze jobs, ended, inputs, results, output, with_files, presence, idempotency, records, tallies"); err != nil {
		t.Fatal(err)
	}
	check("with statistics,")
}

// BenchmarkReads reads in a database with 100,000 jobs, half of them ended.
func BenchmarkReads(b *testing.B) {
	d := withManyJobs(b, 100_000)
	conn := d.Connect(b)
	if _, err := conn.Exec(b.Context(), "vacuum analyze jobs, ended, inputs, results, output"); err != nil {
		b.Fatal(err)
	}
	var waiting, ended job.ID
	const ids = "select (select id from jobs where n = 20002), (select id from ended where n = 90002)"
	if err := conn.QueryRow(b.Context(), ids).Scan((*[16]byte)(&waiting), (*[16]byte)(&ended)); err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), d.URL(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	owner, key, none := job.Owner{Tenant: "t", User: "u0"}, "k22", "none"
	list := func(f job.Filter) func() (int, error) {
		f.Owner, f.Limit = owner, 50
		return func() (int, error) {
			page, _, err := s.List(b.Context(), f)
			return len(page), err
		}
	}
	for _, r := range []struct {
		name string
		want int
		read func() (int, error)
	}{
		{"job", 1, func() (int, error) { _, err := s.Job(b.Context(), owner, waiting); return 1, err }},
		{"input", 5, func() (int, error) { in, err := s.Input(b.Context(), owner, ended); return len(in), err }},
		{"text", 0, func() (int, error) { _, text, err := s.Text(b.Context(), owner, ended, 1000); return len(text), err }},
		{"versions of 100", 100, func() (int, error) {
			v, err := s.Versions(b.Context(), slices.Repeat([]store.OwnedID{{Owner: owner, ID: ended}}, 100))
			return len(v), err
		}},
		{"list", 50, list(job.Filter{})},
		{"list by queue", 50, list(job.Filter{Queue: "q1"})},
		{"list by status", 50, list(job.Filter{Status: job.Cancelled})},
		{"list by key", 50, list(job.Filter{Key: &key})},
		{"list by unknown key", 0, list(job.Filter{Key: &none})},
		{"list by code", 50, list(job.Filter{ErrorCode: "c3"})},
		{"list by metadata", 0, list(job.Filter{Metadata: map[string]string{"a": "b"}})},
		{"lapsed", 500, func() (int, error) {
			page, err := s.Running(b.Context(), store.LapsedOnly, job.ID{}, 500)
			return len(page), err
		}},
		{"overrun of 5,000", 0, func() (int, error) {
			page, err := s.Running(b.Context(), store.OverrunOnly, job.ID{}, 500)
			return len(page), err
		}},
		{"next due", 1, func() (int, error) { _, _, err := s.NextDue(b.Context()); return 1, err }},
	} {
		b.Run(r.name, func(b *testing.B) {
			for b.Loop() {
				if n, err := r.read(); err != nil || n != r.want {
					b.Fatalf("%d, want %d: %v", n, r.want, err)
				}
			}
		})
	}
}
