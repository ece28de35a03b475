package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// fill stores jobs in all states, with everything that a job may have.
func (d *harness) fill() {
	d.Helper()
	rich := func(s *store.Submit) {
		s.Job.Files, s.Job.Tally, s.Job.Resource = []job.File{{Name: "a", Size: 3}}, "tally", "model"
		s.Job.InputBytes = 8
		s.Job.Policy.Timeouts.Abandon = time.Hour
		s.Idempotency = &store.Idempotency{Key: s.Job.ID.String(), Keep: time.Hour}
		s.Rows = []store.Row{{Owner: local, Kind: "k", Parent: "p", ID: s.Job.ID.String(), Body: []byte("body")}}
	}
	waiting, scheduled, removed := newSubmit(rich), newSubmit(rich), newSubmit(rich)
	scheduled.Delay = time.Hour
	running, succeeded, failed := newSubmit(rich, leased), newSubmit(rich, leased), newSubmit(rich, leased)
	d.apply(waiting, scheduled, removed, running, succeeded, failed)
	d.apply(
		&store.Append{Lease: leaseOf(running), Entries: entriesAfter(0, "one", "two")},
		&store.Finish{Lease: leaseOf(succeeded), To: job.Succeeded, Entries: entriesAfter(0, "text"), Result: &job.Result{ContentType: "a/b", Body: []byte("result")}},
		&store.Finish{Lease: leaseOf(failed), To: job.Failed, Failure: &job.Failure{Code: "bad", Message: "bad"}},
		&store.Delete{Owner: local, ID: removed.Job.ID},
	)
}

func TestCheckFindsNothingInSoundDatabase(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	d.fill()
	if defects := defectsOf(t, d.db); len(defects) > 0 {
		t.Error(strings.Join(defects, "\n"))
	}
}

func TestCheckFindsDefects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ defect, damage string }{
		{"is unfinished and ended", "insert into ended select n, id, tenant, usr, queue, key, resource, tally, idem, priority, 5, attempt, max_attempts, losses, cleared, revision, created, run_at, started, 1, cancel_at, 1, cursor, out_bytes, in_bytes, bytes, files, progress, failure, code, usage, policy, extra from jobs where state = 2"},
		{"is not in the table of its state", "update ended set state = 2 where state = 6"},
		{"place in the line", "update jobs set lane = null where state = 2"},
		{"place in the line", "update jobs set due = null where state = 1"},
		{"place in the line", "update jobs set token = null where state = 4"},
		{"was not used", "update jobs set n = n + 1000 where state = 2"},
		{"has no input", "delete from inputs where n = (select min(n) from ended)"},
		{"was refused and is still there", "with i as (insert into inbox (queue, body) values ('q', '{}') returning *) insert into inbox_refused (id, tenant, usr, queue, at, code, reason) select id, tenant, usr, queue, at, 'c', 'r' from i"},
		{"an input belongs to no job", "insert into inputs values (9999, 'x')"},
		{"a result belongs to no job", "insert into results values (9999, 'a/b', 'x')"},
		{"a list of files belongs to no job", "insert into with_files values (9999, gen_random_uuid())"},
		{"has files and is not listed", "delete from with_files where n = (select min(n) from jobs)"},
		{"an abandon timeout belongs to no unfinished job", "insert into presence values (gen_random_uuid(), 9999, 't', 'local', 1, 1)"},
		{"the output of the job", "delete from output where seq = 1 and n = (select n from jobs where state = 4)"},
		{"the output of the job", "update output set total = total + 1 where seq = 1 and n = (select n from jobs where state = 4)"},
		{"the output of the job", "update jobs set cursor = 3 where state = 4"},
		{"the output of the job", "update jobs set out_bytes = 3 where state = 4"},
		{"output belongs to no job", "insert into output values (9999, 1, 1, 1, 1, 1, 'x')"},
		{"the idempotency key of the job", "delete from idempotency where job = (select id from jobs where state = 4)"},
		{"an idempotency key belongs to no job", "insert into idempotency values ('t', 'local', 'lost', gen_random_uuid(), 'x', 1)"},
		{`what an owner keeps is wrong: tenant "t", user "local", 1 bytes more`, "update owners set bytes = bytes - 1"},
		{"the counts of a tally are wrong", "update tallies set running = running + 1"},
		{"the counts of a tally are wrong", "update tallies set rows = rows + 1"},
		{"the counts of a tally are wrong", "delete from tallies"},
		{"the size is wrong", "update fold set bytes = 1"},
		{"is damaged", "update ended set policy = 'x' where state = 6"},
		{"do not fit its record", "update ended set code = 'other' where state = 6"},
		{"do not fit its record", "update jobs set tally = null, resource = 'other' where state = 4"},
		{`the queue "q" has the counts`, "update jobs set in_bytes = in_bytes + 1 where state = 1"},
		{`the queue "other" has the counts`, "update jobs set queue = 'other' where state = 1"},
		{"moves are missing", "delete from moves where seq = 1"},
	} {
		t.Run(c.defect, func(t *testing.T) {
			t.Parallel()
			d := newHarness(t)
			d.fill()
			// Taken back before the check at the end of the test.
			conn := d.db.Connect(t)
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if tag, err := tx.Exec(t.Context(), c.damage); err != nil || tag.RowsAffected() == 0 {
				t.Fatalf("%s: %v, %v", c.damage, tag, err)
			}
			var found []string
			k := &checker{ctx: t.Context(), tx: tx, found: func(defect string) { found = append(found, defect) }}
			if k.run(); k.err != nil {
				t.Fatal(k.err)
			}
			if all := strings.Join(found, "\n"); !strings.Contains(all, c.defect) {
				t.Errorf("a check finds %q, want %q", all, c.defect)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
