package sqlite

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// damaging is a store whose rows a test damages, with a clock that it moves.
type harness struct {
	*testing.T
	*Store
	path string
	now  time.Time
}

func newHarness(t *testing.T) *harness {
	d := &harness{T: t, path: filepath.Join(t.TempDir(), "jobs.db"), now: time.Date(2031, 5, 7, 11, 0, 0, 0, time.UTC)}
	d.open()
	t.Cleanup(func() { _ = d.Store.Close() })
	return d
}

func (d *harness) open() {
	d.Helper()
	s, err := Open(d.Context(), d.path, Options{Clock: func() time.Time { return d.now }, Unsynced: true})
	if err != nil {
		d.Fatal(err)
	}
	d.Store = s
}

func (d *harness) apply(ops ...any) *store.Batch {
	d.Helper()
	b := store.NewBatch()
	for _, op := range ops {
		b.Add(op)
	}
	if err := store.Commit(d.Context(), d.Store, b); err != nil {
		d.Fatalf("a damaged row stopped the batch: %v", err)
	}
	return b
}

var testOwner = job.Owner{User: "someone"}

func (d *harness) submit(edits ...func(*store.Submit)) job.ID {
	d.Helper()
	s := &store.Submit{Input: []byte("{}"), Job: job.Job{
		ID: job.NewID(), Owner: testOwner, Queue: "q", Priority: 5, MaxAttempts: 3, Metadata: map[string]string{"a": "b"},
		Policy: job.Policy{Timeouts: job.Timeouts{Lease: time.Minute, Abandon: time.Hour}, Retry: job.Retry{AfterOutput: job.RestartAfterOutput}},
	}}
	for _, edit := range edits {
		edit(s)
	}
	d.apply(s)
	return s.Job.ID
}

// damage spoils a column of a job's row.
func (d *harness) spoil(column string, jobs ...job.ID) {
	d.Helper()
	for _, id := range jobs {
		sql := fmt.Sprintf("UPDATE jobs SET %s = x'7b00ff' WHERE id = ?", column)
		if err := sqlitex.Execute(d.conn, sql, &sqlitex.ExecOptions{Args: []any{id[:]}}); err != nil {
			d.Fatal(err)
		}
	}
}

// failed checks that jobs have failed for their damage, and can be read again.
func (d *harness) checkFailed(b *store.Batch, jobs ...job.ID) {
	d.Helper()
	for _, id := range jobs {
		if !slices.Contains(b.Damaged, id) {
			d.Errorf("a batch does not tell that it met a damaged row")
		}
		j, err := d.Job(d.Context(), testOwner, id)
		if err != nil || j.State != job.Failed || j.Failure == nil || j.Failure.Code != store.DamagedJob {
			d.Errorf("a job whose row was damaged is %s with the failure %+v: %v", j.State, j.Failure, err)
		}
	}
	if len(b.Damaged) != len(jobs) {
		d.Errorf("a batch tells of %d damaged rows, want %d", len(b.Damaged), len(jobs))
	}
}

func newClaim(n int) *store.Claim {
	c := &store.Claim{Queue: "q", Worker: "w", LeaseFor: time.Minute}
	for range n {
		c.Tokens = append(c.Tokens, job.NewToken())
	}
	return c
}

// A claim gets the sound jobs; those whose rows are damaged fail.
func TestClaimSkipsDamagedRows(t *testing.T) {
	for _, column := range []string{"policy", "extra", "failure", "progress"} {
		d := newHarness(t)
		bad, sound, worse := d.submit(), d.submit(), d.submit()
		d.spoil(column, bad, worse)
		claim := newClaim(2)
		b := d.apply(claim)
		if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != sound {
			t.Errorf("with the %s of two rows damaged %d jobs were claimed, want the sound one", column, len(claim.Claimed))
		}
		d.checkFailed(b, bad, worse)
		if c := b.Counts["q"]; c != (job.Counts{Running: 1, Failed: 2}) {
			t.Errorf("the counts are %+v", c)
		}
	}
}

// A due goes on to the sound jobs.
func TestDueSkipsDamagedRows(t *testing.T) {
	d := newHarness(t)
	delayed := func(s *store.Submit) { s.Delay = time.Minute }
	patient := func(s *store.Submit) { s.Job.Policy.Timeouts.Queue = time.Minute }
	badLate, late, badPatient, patientOne := d.submit(delayed), d.submit(delayed), d.submit(patient), d.submit(patient)
	d.spoil("policy", badLate, badPatient)
	d.now = d.now.Add(time.Hour)
	due := &store.Due{Limit: 10}
	b := d.apply(due)
	d.checkFailed(b, badLate, badPatient)
	if due.Ready != 1 || len(due.Expired) != 1 || due.Expired[0].ID != patientOne {
		t.Errorf("a due made %d jobs ready and expired %d, want one each", due.Ready, len(due.Expired))
	}
	if j, err := d.Job(d.Context(), testOwner, late); err != nil || j.State != job.Queued {
		t.Errorf("the sound job is %s: %v", j.State, err)
	}
}

// A running job whose row is damaged fails once the store was opened again, and
// lets a parked one of its key follow.
func TestOpenEndsDamagedRunningJobs(t *testing.T) {
	d := newHarness(t)
	leased := func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = job.NewToken(), time.Minute, "w" }
	bad, sound := d.submit(leased), d.submit(leased)
	d.spoil("extra", bad)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d.open()
	d.checkFailed(d.apply(), bad)
	running, err := d.Running(d.Context(), store.AllRunning, job.ID{}, 10)
	if err != nil || len(running) != 1 || running[0].Job.ID != sound {
		t.Errorf("%d jobs run, want the sound one: %v", len(running), err)
	}
	if b := d.apply(); len(b.Damaged) > 0 {
		t.Error("a damaged row is found twice")
	}
}

// Lists leave a damaged row out; its owner can cancel and delete it, and is told why
// it cannot be retried. A prune deletes it when its time has come.
func TestOwnerCanRemoveDamagedJob(t *testing.T) {
	d := newHarness(t)
	bad, sound, deleted := d.submit(), d.submit(), d.submit()
	d.spoil("policy", bad, deleted)
	page, _, err := d.List(d.Context(), job.Filter{Owner: testOwner, Limit: 10})
	if err != nil || len(page) != 1 || page[0].ID != sound {
		t.Errorf("a list has %d jobs, want the sound one: %v", len(page), err)
	}
	d.now = d.now.Add(time.Hour)
	if may, _, err := d.Abandonable(d.Context(), "", 10); err != nil || len(may) != 1 {
		t.Errorf("%d jobs may be abandoned, want the sound one: %v", len(may), err)
	}
	if _, err := d.Job(d.Context(), testOwner, bad); job.CodeOf(err) != job.Internal {
		t.Errorf("reading a damaged row answers %v", err)
	}
	retry := &store.Retry{Owner: testOwner, ID: bad}
	d.checkFailed(d.apply(retry), bad)
	if job.CodeOf(retry.Err) != job.NotRetryable {
		t.Errorf("the retry of a job whose record was damaged answers %v", retry.Err)
	}
	cancel, remove := &store.Cancel{Owner: testOwner, ID: bad}, &store.Delete{Owner: testOwner, ID: deleted}
	d.apply(cancel, remove)
	if cancel.Err != nil || cancel.Job.State != job.Failed || remove.Err != nil {
		t.Errorf("a cancel answers %v, a delete %v", cancel.Err, remove.Err)
	}
	d.now = d.now.Add(keepDamaged + time.Hour)
	prune := &store.Prune{Limit: 10}
	if d.apply(prune); prune.Deleted != 1 {
		t.Errorf("a prune deleted %d jobs, want 1", prune.Deleted)
	}
}

func (d *harness) reopenWith(atEnd store.AtEnd) {
	d.Helper()
	if err := d.Store.Close(); err != nil {
		d.Fatal(err)
	}
	s, err := Open(d.Context(), d.path, Options{Clock: func() time.Time { return d.now }, Unsynced: true, AtEnd: atEnd})
	if err != nil {
		d.Fatal(err)
	}
	d.Store = s
}

func (d *harness) exec(sql string, args ...any) {
	d.Helper()
	if err := sqlitex.Execute(d.conn, sql, &sqlitex.ExecOptions{Args: args}); err != nil {
		d.Fatal(err)
	}
}

func (d *harness) running(edits ...func(*store.Submit)) (job.ID, job.Lease) {
	d.Helper()
	token := job.NewToken()
	leased := func(s *store.Submit) { s.Token, s.LeaseFor, s.Worker = token, time.Minute, "w" }
	id := d.submit(append(edits, leased)...)
	return id, job.Lease{Job: id, Token: token}
}

func textEntry(seq int64, text string) []job.Entry {
	return []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Data: []byte(text)}}
}

// A row and a tail that are damaged end their job once.
func TestJobWithDamagedRowAndTailEndsOnce(t *testing.T) {
	d := newHarness(t)
	id, lease := d.running()
	d.apply(&store.Append{Lease: lease, Entries: textEntry(1, "hello")})
	d.spoil("policy", id)
	d.exec("UPDATE tail SET data = x'ffffff'")
	d.reopenWith(nil)
	d.checkFailed(d.apply(), id)
}

// An end reads what can be read of a damaged log.
func TestJobWithDamagedLogFinishes(t *testing.T) {
	d := newHarness(t)
	d.reopenWith(func(e store.End) store.FollowUp {
		e.Text(100)
		e.Entries(100)
		return store.FollowUp{}
	})
	id, lease := d.running(func(s *store.Submit) { s.Job.Refs = []string{"r"} })
	d.apply(&store.Append{Lease: lease, Entries: textEntry(1, string(bytes.Repeat([]byte("x"), 200)))})
	d.apply(&store.Append{Lease: lease, Entries: textEntry(2, string(bytes.Repeat([]byte("y"), 200)))})
	d.exec("UPDATE output SET data = x'ffffff'")
	d.apply(&store.Finish{Lease: lease, To: job.Succeeded})
	if j, err := d.Job(d.Context(), testOwner, id); err != nil || j.State != job.Succeeded {
		t.Fatal(j.State, err)
	}
}

// A job whose record is damaged is counted out of its tally, and out of what it holds.
func TestDamagedJobLeavesItsTally(t *testing.T) {
	for column, damage := range map[string]string{"policy": "x'7b00ff'", "extra": `replace(extra, '"b"', '"b')`} {
		d := newHarness(t)
		in := func(s *store.Submit) { s.Job.Tally = "t" }
		bad := d.submit(in)
		d.exec(fmt.Sprintf("UPDATE jobs SET %s = %s WHERE id = ?", column, damage), bad[:])
		d.checkFailed(d.apply(newClaim(1)), bad)
		n, err := d.Tally(d.Context(), testOwner, "t")
		if err != nil || n.Unfinished() != 0 || n.Failed != 1 {
			t.Errorf("with the %s damaged the tally is %+v, %v", column, n, err)
		}
		d.apply(&store.Delete{Owner: testOwner, ID: bad})
		n, err = d.Tally(d.Context(), testOwner, "t")
		if err != nil || n != (job.Counts{}) {
			t.Errorf("with the %s damaged the tally is %+v, %v after the delete", column, n, err)
		}
	}
}
