package engine_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// storeLeased stores a running job, as after the kill of its process.
func storeLeased(t *testing.T, s store.Store, edit func(*store.Submit)) job.ID {
	t.Helper()
	op := &store.Submit{
		Job:   job.Job{ID: job.NewID(), Owner: local, Queue: "sim", Priority: 5, MaxAttempts: 4, Policy: policy()},
		Token: job.NewToken(), LeaseFor: time.Minute, Worker: "gone",
	}
	edit(op)
	b := store.NewBatch()
	b.Add(op)
	if err := store.Commit(t.Context(), s, b); err != nil || op.Err != nil {
		t.Fatal(err, op.Err)
	}
	return op.Job.ID
}

// A process was killed after the delete of a running job. The next start removes the files of
// that job.
func TestStartRemovesFilesOfDeletedJob(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := storeLeased(t, s, func(op *store.Submit) { op.Job.Files = []job.File{{Name: "a", Size: 1}} })
	b := store.NewBatch()
	b.Add(&store.Delete{Owner: local, ID: id})
	if err := store.Commit(t.Context(), s, b); err != nil {
		t.Fatal(err)
	}
	removed := make(chan []job.ID, 1)
	startWithConfig(t, engine.Config{Store: s, Queues: queues(), RemoveFiles: func(ids []job.ID) { removed <- ids }})
	if ids := <-removed; len(ids) != 1 || ids[0] != id {
		t.Errorf("the files of %v were removed, not those of %s", ids, id)
	}
}

// damageReportingStore is a store whose first commit reports damaged records.
type damageReportingStore struct {
	store.Store
	damaged []job.ID
	limits  map[string]job.Limits // the limits in the first commit
}

func (f *damageReportingStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	synced, err := f.Store.Apply(ctx, b)
	if f.damaged != nil {
		b.Damaged, f.damaged, f.limits = f.damaged, nil, b.Limits
	}
	return synced, err
}

// A start logs damaged jobs, and applies the limits to the jobs that it reclaims.
func TestStartLogsDamagedJobs(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := newStore(t)
	t.Cleanup(func() { _ = s.Close() })
	storeLeased(t, s, func(*store.Submit) {})
	q := queues()
	q[0].KeyRunning = 7
	f := &damageReportingStore{Store: s, damaged: []job.ID{job.NewID()}}
	damaged := f.damaged[0]
	if _, err := engine.New(t.Context(), engine.Config{Store: f, Alone: true, Queues: q, Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), damaged.String()) {
		t.Errorf("the log is %q, want it to name %s", log.String(), damaged)
	}
	if f.limits["sim"].KeyRunning != 7 {
		t.Errorf("the reclaimed jobs have the limits %+v", f.limits)
	}
}

// A job that cannot be reclaimed prevents neither the start nor the reclaim of the other
// jobs.
func TestStartReclaimsAllButUnstorable(t *testing.T) {
	t.Parallel()
	file := newStore(t)
	var ids []job.ID
	for range 5 {
		ids = append(ids, storeLeased(t, file, func(*store.Submit) {}))
	}
	bad := ids[2]
	s := faulty.New(file, faulty.Plan{Bad: func(op any) bool {
		f, ok := op.(*store.Finish)
		return ok && f.Lease.Job == bad
	}})
	h := startHarness(t, s)
	for _, id := range ids {
		want := job.Queued // the lease was never used
		if id == bad {
			want = job.Running
		}
		if snap, err := h.Get(t.Context(), local, id); err != nil || snap.State != want {
			t.Errorf("a job of a dead process is %s, want %s: %v", snap.State, want, err)
		}
	}
}

// A start repeats a commit until its outcome is known.
func TestStartRetriesUnknownCommit(t *testing.T) {
	t.Parallel()
	file := newStore(t)
	id := storeLeased(t, file, func(*store.Submit) {})
	s := faulty.New(file, faulty.Plan{})
	s.Next(faulty.Fault{Step: faulty.SyncLostAfterCommit}, faulty.Fault{Step: faulty.SyncLostAfterCommit})
	h := startHarness(t, s)
	if snap, err := h.Get(t.Context(), local, id); err != nil || snap.State != job.Queued {
		t.Errorf("a job of a dead process is %s: %v", snap.State, err)
	}
}
