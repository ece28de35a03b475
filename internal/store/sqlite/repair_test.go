package sqlite

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// A claim leases the intact jobs. Jobs with damaged rows fail.
func TestClaimSkipsDamagedRows(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"policy", "extra", "failure", "progress"} {
		d := newHarness(t)
		bad, sound, worse := d.submit(), d.submit(), d.submit()
		d.spoil(column, bad, worse)
		claim := newClaim(2)
		b := d.apply(claim)
		if len(claim.Claimed) != 1 || claim.Claimed[0].Job.ID != sound {
			t.Errorf("with the %s of two rows damaged %d jobs were claimed, want the intact one", column, len(claim.Claimed))
		}
		d.checkFailed(b, bad, worse)
		if c := b.Counts["q"]; c != (job.Counts{Running: 1, Failed: 2}) {
			t.Errorf("the counts are %+v", c)
		}
	}
}

// A Due op applies to the intact jobs.
func TestDueSkipsDamagedRows(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	delayed := func(s *store.Submit) { s.Delay = time.Minute }
	withTimeout := func(s *store.Submit) { s.Job.Policy.Timeouts.Queue = time.Minute }
	badDelayed, delayedJob, badTimeout, expiring := d.submit(delayed), d.submit(delayed), d.submit(withTimeout), d.submit(withTimeout)
	d.spoil("policy", badDelayed, badTimeout)
	d.now = d.now.Add(time.Hour)
	due := &store.Due{Limit: 10}
	b := d.apply(due)
	d.checkFailed(b, badDelayed, badTimeout)
	if due.Ready != 1 || len(due.Expired) != 1 || due.Expired[0].ID != expiring {
		t.Errorf("a due made %d jobs ready and expired %d, want one each", due.Ready, len(due.Expired))
	}
	if j, err := d.Job(d.Context(), testOwner, delayedJob); err != nil || j.State != job.Queued {
		t.Errorf("the intact job is %s: %v", j.State, err)
	}
}

// A running job with a damaged row fails after the next opening.
func TestOpenEndsDamagedRunningJobs(t *testing.T) {
	t.Parallel()
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
		t.Errorf("%d jobs run, want the intact one: %v", len(running), err)
	}
	if b := d.apply(); len(b.Damaged) > 0 {
		t.Error("a damaged row is found twice")
	}
}

// Lists omit a damaged row. Its owner can cancel and delete the job, but not retry it. A prune
// deletes it when its time has passed.
func TestOwnerCanRemoveDamagedJob(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	bad, sound, deleted := d.submit(), d.submit(), d.submit()
	d.spoil("policy", bad, deleted)
	page, _, err := d.List(d.Context(), job.Filter{Owner: testOwner, Limit: 10})
	if err != nil || len(page) != 1 || page[0].ID != sound {
		t.Errorf("a list has %d jobs, want the intact one: %v", len(page), err)
	}
	d.now = d.now.Add(time.Hour)
	if may, _, err := d.Abandonable(d.Context(), "", 10); err != nil || len(may) != 1 {
		t.Errorf("%d jobs may be abandoned, want the intact one: %v", len(may), err)
	}
	if _, err := d.Job(d.Context(), testOwner, bad); job.CodeOf(err) != job.Internal {
		t.Errorf("reading a damaged row returns %v", err)
	}
	retry := &store.Retry{Owner: testOwner, ID: bad}
	d.checkFailed(d.apply(retry), bad)
	if job.CodeOf(retry.Err) != job.NotRetryable {
		t.Errorf("the retry of a job with a damaged row returns %v", retry.Err)
	}
	cancel, remove := &store.Cancel{Owner: testOwner, ID: bad}, &store.Delete{Owner: testOwner, ID: deleted}
	d.apply(cancel, remove)
	if cancel.Err != nil || cancel.Job.State != job.Failed || remove.Err != nil {
		t.Errorf("a cancel returns %v, a delete %v", cancel.Err, remove.Err)
	}
	d.now = d.now.Add(ops.KeepDamaged + time.Hour)
	prune := &store.Prune{Limit: 10}
	if d.apply(prune); prune.Deleted != 1 {
		t.Errorf("a prune deleted %d jobs, want 1", prune.Deleted)
	}
}

// A job with a damaged row and a damaged tail ends once.
func TestJobWithDamagedRowAndTailEndsOnce(t *testing.T) {
	t.Parallel()
	d := newHarness(t)
	id, lease := d.running()
	d.apply(&store.Append{Lease: lease, Entries: textEntry(1, "hello")})
	d.spoil("policy", id)
	d.exec("UPDATE tail SET data = x'ffffff'")
	d.reopenWith(nil)
	d.checkFailed(d.apply(), id)
}

// A job ends although AtEnd can read only a part of its log.
func TestJobWithDamagedLogFinishes(t *testing.T) {
	t.Parallel()
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

// A damaged job leaves the counts of its tally.
func TestDamagedJobLeavesItsTally(t *testing.T) {
	t.Parallel()
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
