package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// diskHarness is an engine on a disk that the test makes full, slow or unwritable.
type diskHarness struct {
	*sweepHarness
	faulty *faulty.Store
	free   atomic.Int64
	// fault returns the fault of a batch's commit; nil for no faults. The test replaces it while
	// the engine runs.
	fault atomic.Pointer[func(b *store.Batch) faulty.Fault]
}

func newDiskHarness(t *testing.T, o sqlite.Options) *diskHarness {
	t.Helper()
	r := &diskHarness{}
	r.free.Store(1 << 40)
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	o.Clock = c.Now
	inner := NewTestStore(t, o)
	r.faulty = faulty.New(inner, faulty.Plan{Commit: func(_ int, b *store.Batch) faulty.Fault {
		if f := r.fault.Load(); f != nil {
			return (*f)(b)
		}
		return faulty.Fault{}
	}})
	r.sweepHarness = newSweepHarnessOver(t, c, Config{
		Store: r.faulty, RenewEvery: time.Hour,
		Free: func() (int64, error) { return r.free.Load(), nil }, MinFree: 64 << 20,
	})
	r.sweeper.healthySince = time.Now().Add(-2 * time.Hour)
	return r
}

// failCommits makes the commits of matching batches fail.
func (r *diskHarness) failCommits(step faulty.Step, match func(b *store.Batch) bool) {
	f := func(b *store.Batch) faulty.Fault {
		if match(b) {
			return faulty.Fault{Step: step}
		}
		return faulty.Fault{}
	}
	r.fault.Store(&f)
}

func (r *diskHarness) stopFailing() { r.fault.Store(nil) }

// remeasure makes the next submit measure the free space of the disk.
func (r *diskHarness) remeasure() {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.measuredAt, r.disk.fullAt = time.Time{}, time.Time{}
}

func (r *diskHarness) trySubmit(request Request) (Snapshot, bool, error) {
	request.Owner.User, request.Queue = "u", "q"
	return r.Submit(r.t.Context(), request)
}

func anyOp(b *store.Batch) bool { return b.Len() > 0 }

func oneEntry(seq int64) []job.Entry {
	return []job.Entry{{Seq: seq, Attempt: 1, Kind: job.KindText, Events: 1, Data: []byte("word")}}
}

// While the disk has less free space than MinFree, the engine refuses new work without a write.
// It still answers known idempotency keys, and running jobs continue. It accepts new work again
// when there is space.
func TestLowDiskSpaceRefusesNewWork(t *testing.T) {
	t.Parallel()
	r := newDiskHarness(t, sqlite.Options{Unsynced: true})
	first, _, err := r.trySubmit(Request{IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	c := <-r.jobs
	r.free.Store(64<<20 - 1)
	r.remeasure()
	commits := r.faulty.Commits()
	_, _, err = r.trySubmit(Request{})
	var refused *job.Error
	if !errors.As(err, &refused) || refused.Code != job.NoSpace || refused.RetryAfter == 0 {
		t.Errorf("a submit is answered %v", err)
	}
	if out, err := r.SubmitMany(t.Context(), []Request{{Owner: job.Owner{User: "u"}, Queue: "q"}}, false); err != nil || job.CodeOf(out[0].Err) != job.NoSpace {
		t.Errorf("submits in a batch are answered %v %v", out, err)
	}
	if err := r.CheckCapacity("q", 1); job.CodeOf(err) != job.NoSpace {
		t.Errorf("before a body is received: %v", err)
	}
	if again, existing, err := r.trySubmit(Request{IdempotencyKey: "k"}); err != nil || !existing || again.ID != first.ID {
		t.Errorf("a known key is answered %v", err)
	}
	if n := r.faulty.Commits(); n != commits {
		t.Errorf("refused submits caused %d commits", n-commits)
	}
	if err := r.Append(t.Context(), c.Lease(), oneEntry(1), nil); err != nil {
		t.Errorf("output of running work: %v", err)
	}
	if _, err := r.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
		t.Errorf("the end of running work: %v", err)
	}
	r.free.Store(64<<20 + writesPerByte*opBytes)
	r.remeasure()
	if _, _, err := r.trySubmit(Request{}); err != nil {
		t.Errorf("with free space: %v", err)
	}
}

// On a full disk the engine stores renewals and finishes before output, which waits. No lease is
// swept, nothing is lost, and no caller has to repeat its op.
func TestFullDiskAcceptsRenewalsAndFinishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		r.failCommits(faulty.DiskFull, func(b *store.Batch) bool { return len(b.Appends)+len(b.Dues)+len(b.Writes)+len(b.Submits) > 0 })
		appended := make(chan error, 1)
		go func() { appended <- r.Append(t.Context(), c.Lease(), oneEntry(1), nil) }()
		synctest.Wait() // the op has failed for lack of space
		for range 2 {
			if err := r.Renew(t.Context(), []job.Lease{c.Lease()})[0]; err != nil {
				t.Fatalf("a renewal on a full disk: %v", err)
			}
		}
		if r.sweeper.maySweepLeases() {
			t.Error("leases may be swept on a full disk")
		}
		if err := r.Write(t.Context(), store.Row{Kind: "k", Parent: "p", ID: "i", Body: []byte("b")}); job.CodeOf(err) != job.NoSpace {
			t.Errorf("a row on a full disk: %v", err)
		}
		if _, _, err := r.trySubmit(Request{}); job.CodeOf(err) != job.NoSpace {
			t.Errorf("a submit on a full disk: %v", err)
		}
		select {
		case err := <-appended:
			t.Fatalf("output that does not fit is answered %v", err)
		default:
		}
		r.stopFailing()
		if err := <-appended; err != nil {
			t.Errorf("output that had to wait: %v", err)
		}
		if _, err := r.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Error(err)
		}
		r.remeasure()
		r.submit(Request{})
		<-r.jobs
	})
}

// If finishes do not fit either, the engine stores renewals alone.
func TestFullDiskAcceptsRenewalsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		r.failCommits(faulty.DiskFull, func(b *store.Batch) bool { return b.Len() > len(b.Renews) })
		ended := make(chan error, 1)
		go func() {
			_, err := r.Finish(t.Context(), c.Lease(), job.Outcome{})
			ended <- err
		}()
		synctest.Wait() // the op has failed for lack of space
		for range 2 {
			if err := r.Renew(t.Context(), []job.Lease{c.Lease()})[0]; err != nil && job.CodeOf(err) != job.LeaseLost {
				t.Fatalf("a renewal on a full disk: %v", err)
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("a finish that does not fit is answered %v", err)
		default:
		}
		r.stopFailing()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A server that stops on a full disk does not wait for free space.
func TestStopDoesNotWaitForDiskSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		r.failCommits(faulty.DiskFull, anyOp)
		ended := make(chan error, 1)
		go func() {
			_, err := r.Finish(context.Background(), c.Lease(), job.Outcome{})
			ended <- err
		}()
		synctest.Wait() // the op has failed for lack of space
		r.stop()
		if err := <-ended; job.CodeOf(err) != job.NoSpace {
			t.Errorf("the end is answered %v", err)
		}
	})
}

// When SQLite's own file is full, running jobs still finish, and a delete makes space.
func TestFinishAndDeleteSucceedAtMaxPages(t *testing.T) {
	t.Parallel()
	r := newDiskHarness(t, sqlite.Options{Unsynced: true, MaxPages: 300})
	var ids []job.ID
	for {
		snap, _, err := r.trySubmit(Request{Input: make([]byte, 50_000)})
		if job.CodeOf(err) == job.NoSpace {
			break
		}
		if err != nil || len(ids) > 100 {
			t.Fatalf("after %d submits of 50 KB: %v", len(ids), err)
		}
		ids = append(ids, snap.ID)
		c := <-r.jobs
		if _, err := r.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
			t.Fatalf("a finish on a nearly full disk: %v", err)
		}
	}
	for _, id := range ids[:len(ids)/2] {
		if err := r.Delete(t.Context(), job.Owner{User: "u"}, id); err != nil {
			t.Fatalf("a delete on a full disk: %v", err)
		}
	}
	r.remeasure()
	if _, _, err := r.trySubmit(Request{Input: make([]byte, 50_000)}); err != nil {
		t.Errorf("with free space: %v", err)
	}
}

// When the directory becomes read-only, the engine soon refuses new work. It keeps the
// running jobs and continues once it can write again.
func TestUnwritableDiskKeepsRunningJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		r.failCommits(faulty.BeforeCommit, anyOp)
		_, _, err := r.trySubmit(Request{})
		var refused *job.Error
		if !errors.As(err, &refused) || refused.Code != job.Unavailable || refused.RetryAfter == 0 {
			t.Fatalf("the first submit is answered %v", err)
		}
		if _, _, err := r.trySubmit(Request{}); job.CodeOf(err) != job.Unavailable {
			t.Fatalf("the next submit is answered %v", err)
		}
		if r.sweeper.maySweepLeases() {
			t.Error("leases may be swept")
		}
		ended := make(chan error, 1)
		go func() {
			_, err := r.Finish(t.Context(), c.Lease(), job.Outcome{})
			ended <- err
		}()
		synctest.Wait() // the finish waits too
		r.stopFailing()
		if err := <-ended; err != nil {
			t.Errorf("the running job: %v", err)
		}
		r.submit(Request{})
		<-r.jobs
	})
}

// Damaged data ends the engine, and Run returns the reason.
func TestDamagedDataEndsTheEngine(t *testing.T) {
	t.Parallel()
	s := &damagedStore{Store: NewTestStore(t, sqlite.Options{})}
	t.Cleanup(func() { _ = s.Close() })
	e, err := New(t.Context(), Config{Store: s, Queues: []Queue{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	s.isDamaged.Store(true)
	// The first commit of the sweep may detect the damage before the submit does.
	if _, _, err := e.Submit(t.Context(), Request{Queue: "q"}); job.CodeOf(err) != job.Unavailable && job.CodeOf(err) != job.ShuttingDown {
		t.Errorf("the submit is answered %v", err)
	}
	if err := <-ended; !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the engine ended with %v", err)
	}
}

// damagedStore is a store that reports damage once isDamaged is set.
type damagedStore struct {
	store.Store
	isDamaged atomic.Bool
}

func (d *damagedStore) Apply(ctx context.Context, b *store.Batch) (func() error, error) {
	if d.isDamaged.Load() {
		return nil, store.ErrDamaged
	}
	return d.Store.Apply(ctx, b)
}

// A sync takes longer than a lease lasts. Workers that could not renew meanwhile keep
// their jobs, the jobs make progress, and the number of pending ops is bounded.
func TestSlowDiskSweepsNoLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const slow = 45 * time.Second
		inner := NewTestStore(t, sqlite.Options{Unsynced: true})
		var stalls atomic.Bool
		s := faulty.New(inner, faulty.Plan{Commit: func(int, *store.Batch) faulty.Fault {
			return faulty.Fault{After: func() {
				if stalls.Load() {
					time.Sleep(slow)
				}
			}}
		}})
		q := testQueue(100, 3, job.Timeouts{Lease: 30 * time.Second})
		e, err := New(t.Context(), Config{Store: s, Queues: []Queue{q}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = e.Run(ctx) })
		var lost, ended atomic.Int32
		var working sync.WaitGroup
		e.Consume(job.Worker{
			Name: "w", Queue: "q", Slots: 100,
			Deliver: func(c job.Claimed) { working.Go(func() { tenRenewals(e, c, &ended) }) },
			Order:   func(_ job.Lease, o job.Order) { lost.Add(1) },
		})
		const jobs = 80
		var asking sync.WaitGroup
		for range jobs {
			asking.Go(func() {
				_, _, err := e.SubmitAndWait(t.Context(), Request{Queue: "q"}, time.Hour)
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		stalls.Store(true)
		asking.Wait()
		working.Wait()
		stop()
		all.Wait()
		if lost.Load() > 0 || ended.Load() != jobs {
			t.Errorf("%d of %d jobs ended, and %d healthy workers lost their lease", ended.Load(), jobs, lost.Load())
		}
		_ = s.Close()
	})
}

// tenRenewals runs a job and renews its lease ten times, each time ten seconds after the
// previous answer.
func tenRenewals(e *Engine, c job.Claimed, ended *atomic.Int32) {
	for range 10 {
		time.Sleep(10 * time.Second)
		if e.Renew(context.Background(), []job.Lease{c.Lease()})[0] != nil {
			return
		}
	}
	if _, err := e.Finish(context.Background(), c.Lease(), job.Outcome{}); err == nil {
		ended.Add(1)
	}
}

// While syncs are slow, renewals come first in each batch, and the number of pending submits is
// bounded. No time passes, so that no submit is refused because it waited too long.
func TestSlowDiskBoundsPendingSubmits(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 64 MiB")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		stuck, gate := make(chan struct{}), make(chan struct{})
		r.faulty.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { close(stuck); <-gate }})
		answers := make(chan error, 200)
		r.queues["q"].limits.Depth = 0
		ask := func(size int) {
			_, _, err := r.trySubmit(Request{Input: make([]byte, size)})
			answers <- err
		}
		go ask(1)
		<-stuck
		const asked, fit = 100, 63 // MiB, and a few bytes more for each op
		for range asked {
			go ask(1 << 20)
		}
		for range asked - fit {
			if err := <-answers; job.CodeOf(err) != job.Overloaded {
				t.Fatalf("past the bound a submit is answered %v", err)
			}
		}
		var first atomic.Int64
		inspect := func(b *store.Batch) faulty.Fault {
			if len(b.Renews) > 0 && len(b.Submits) < 64 {
				first.Store(1)
			}
			return faulty.Fault{}
		}
		r.fault.Store(&inspect)
		renewed := make(chan error, 1)
		p := &pendingOp{lane: laneUrgent, bytes: opBytes, op: &store.Renew{Lease: c.Lease(), LeaseFor: time.Minute}}
		if err := r.lanes.put(p); err != nil {
			t.Fatal(err)
		}
		go func() { renewed <- p.wait(t.Context()) }()
		close(gate)
		if err := <-renewed; err != nil || first.Load() == 0 {
			t.Errorf("the renewal came after all that was asked before it: %v", err)
		}
		for range fit + 1 {
			if err := <-answers; err != nil {
				t.Errorf("an accepted submit was refused later: %v", err)
			}
		}
	})
}

// An accepted submit is subtracted from the free space until it is on disk and the space was
// measured again. It counts twice, because it is written twice.
func TestPendingSubmitsCountAgainstDiskSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.free.Store(64<<20 + 10<<20)
		var blocked atomic.Bool
		blocked.Store(true)
		gate := make(chan struct{})
		hold := func(b *store.Batch) faulty.Fault {
			if len(b.Submits) > 0 && blocked.Load() {
				return faulty.Fault{Before: func() { <-gate }}
			}
			return faulty.Fault{}
		}
		r.fault.Store(&hold)
		const each, fit = 900_000, 5 // of 1.8 MB each, into 10 MiB
		answers := make(chan error, 32)
		for range cap(answers) / 2 {
			go func() {
				_, _, err := r.trySubmit(Request{Input: make([]byte, each)})
				answers <- err
			}()
		}
		synctest.Wait() // some are pending, the others are refused
		if refused := len(answers); refused != 16-fit {
			t.Errorf("%d of 16 were refused before any was written, want %d", refused, 16-fit)
		}
		if out, err := r.SubmitMany(t.Context(), []Request{{Owner: job.Owner{User: "u"}, Queue: "q", Input: make([]byte, each)}}, false); err != nil || job.CodeOf(out[0].Err) != job.NoSpace {
			t.Errorf("a batch is answered %v %v", out, err)
		}
		blocked.Store(false)
		close(gate)
		synctest.Wait()
		// No time has passed since the last measurement, so the written bytes still count.
		if _, _, err := r.trySubmit(Request{Input: make([]byte, each)}); job.CodeOf(err) != job.NoSpace {
			t.Errorf("before the next measurement a submit is answered %v", err)
		}
		time.Sleep(remeasureInterval)
		if _, _, err := r.trySubmit(Request{Input: make([]byte, each)}); err != nil {
			t.Errorf("after the next measurement: %v", err)
		}
	})
}

// Output is subtracted from the free space too, and does not use the reserve at its end. A
// finish with a little output may use it.
func TestOutputLeavesSpaceForFinishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		more := make(chan job.Claimed, 1)
		r.Consume(job.Worker{Name: "second", Queue: "q", Slots: 1, Deliver: func(c job.Claimed) { more <- c }})
		r.submit(Request{})
		r.submit(Request{})
		large, small := <-r.jobs, <-more
		r.submit(Request{}) // waits for a slot and for space
		r.free.Store(-1)
		r.remeasure()
		time.Sleep(measureInterval)
		long := oneEntry(1)
		long[0].Data = make([]byte, maxFullDiskOutput)
		appended := make(chan error, 1)
		go func() { appended <- r.Append(t.Context(), large.Lease(), long, nil) }()
		if err := r.Append(t.Context(), small.Lease(), oneEntry(1), nil); err != nil {
			t.Errorf("a little output on a full disk: %v", err)
		}
		if state, err := r.Finish(t.Context(), small.Lease(), job.Outcome{}); err != nil || state != job.Succeeded {
			t.Errorf("a finish on a full disk: %v, %v", state, err)
		}
		if len(appended) > 0 {
			t.Errorf("large output on a full disk is answered %v", <-appended)
		}
		r.free.Store(1 << 40)
		if err := <-appended; err != nil {
			t.Errorf("output that had to wait: %v", err)
		}
		<-more
		synctest.Wait()
		if n := r.queues["q"].claiming; n != 0 {
			t.Errorf("%d claims that did not fit are still counted", n)
		}
	})
}

// A delete does not wait behind a result that does not fit.
func TestLargeResultDoesNotDelayDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		r.submit(Request{})
		c := <-r.jobs
		waits, _, err := r.trySubmit(Request{Delay: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		r.failCommits(faulty.DiskFull, func(b *store.Batch) bool { return len(b.Finishes) > 0 })
		ended := make(chan error, 1)
		go func() {
			_, err := r.Finish(t.Context(), c.Lease(), job.Outcome{Result: &job.Result{Body: make([]byte, 1<<20)}})
			ended <- err
		}()
		synctest.Wait()
		if err := r.Delete(t.Context(), job.Owner{User: "u"}, waits.ID); err != nil {
			t.Errorf("a delete beside a result that does not fit: %v", err)
		}
		r.stopFailing()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// When not even a cancel or a delete fits on the disk, the engine refuses them after a while.
// Due jobs wait, and sweeps continue.
func TestFullDiskRefusesInsteadOfHanging(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		waits, _, err := r.trySubmit(Request{Delay: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		r.failCommits(faulty.DiskFull, anyOp)
		owner := job.Owner{User: "u"}
		for what, ask := range map[string]func() error{
			"a cancel": func() error { _, err := r.Cancel(t.Context(), owner, waits.ID); return err },
			"a delete": func() error { return r.Delete(t.Context(), owner, waits.ID) },
			"a pause":  func() error { _, err := r.SetPaused(t.Context(), "q", true); return err },
			"a sweep":  func() error { r.sweeper.scheduleAt(r.clock.Now()); return r.sweeper.sweep(t.Context()) },
		} {
			began := time.Now()
			err := ask()
			if want := job.NoSpace; what != "a sweep" && job.CodeOf(err) != want {
				t.Errorf("%s is answered %v", what, err)
			}
			if took := time.Since(began); took > 2*fullDiskWait {
				t.Errorf("%s took %s", what, took)
			}
		}
		if r.HasDiskSpace() {
			t.Error("HasDiskSpace does not report the full disk")
		}
		r.stopFailing()
		time.Sleep(measureInterval)
		if err := r.Delete(t.Context(), owner, waits.ID); err != nil || !r.HasDiskSpace() {
			t.Errorf("with free space: %v", err)
		}
	})
}

// On a full disk no presence can be stored. Sweeps continue, and jobs still end.
func TestUnstoredPresenceDoesNotDelaySweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newDiskHarness(t, sqlite.Options{Unsynced: true})
		p := job.Policy{Timeouts: job.Timeouts{Lease: 30 * time.Second, CancelGrace: 10 * time.Second, Abandon: job.MinAbandon}}
		id := r.submit(Request{Policy: &p})
		<-r.jobs
		r.failCommits(faulty.DiskFull, func(b *store.Batch) bool { return len(b.Presences) > 0 })
		r.get(id) // counts as presence
		if _, err := r.Cancel(t.Context(), job.Owner{User: "u"}, id); err != nil {
			t.Fatal(err)
		}
		r.clock.pass(11 * time.Second)
		for range 2 {
			began := time.Now()
			_ = r.sweeper.sweep(t.Context())
			if took := time.Since(began); took > time.Second {
				t.Fatalf("a sweep took %s", took)
			}
			time.Sleep(abandonEvery)
		}
		if s := r.get(id); s.State != job.Cancelled {
			t.Errorf("a job whose cancel was not followed is %s", s.State)
		}
		r.stopFailing()
		time.Sleep(abandonEvery)
		r.sweep()
	})
}
