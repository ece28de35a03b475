package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// Several ops on one job share a batch, in any order. The watcher of the job gets the final
// state of the store, and never an earlier state after a later one.
func TestWatcherFollowsOpsOfOneBatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// begin brings the job into the state before the ops.
		begin func(p *sharedBatch)
		ops   []func(p *sharedBatch)
		want  job.State // 0 for a deleted job
	}{
		{"cancel, failing finish", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).cancel, (*sharedBatch).fail}, job.Cancelled},
		{"cancel, successful finish", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).cancel, (*sharedBatch).succeed}, job.Succeeded},
		{"cancel, release", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).cancel, (*sharedBatch).release}, job.Cancelled},
		{"delete, failing finish", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).delete, (*sharedBatch).fail}, 0},
		{"delete, successful finish", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).delete, (*sharedBatch).succeed}, 0},
		{"output, failing finish of a cancelled job", (*sharedBatch).runCancelledJob, []func(*sharedBatch){(*sharedBatch).appendOutput, (*sharedBatch).fail}, job.Cancelled},
		{"retry, failure for good", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).retry, (*sharedBatch).failForGood}, job.Running},
		{"retry, cancel, failure for good", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).retry, (*sharedBatch).cancel, (*sharedBatch).failForGood}, job.Running},
		{"delete, cancel, failing finish", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).delete, (*sharedBatch).cancel, (*sharedBatch).fail}, 0},
		{"cancel, claim", (*sharedBatch).queueJob, []func(*sharedBatch){(*sharedBatch).cancel, (*sharedBatch).freeSlot}, job.Cancelled},
		{"finish, claim", (*sharedBatch).runJob, []func(*sharedBatch){(*sharedBatch).release, (*sharedBatch).doNothing}, job.Running},
		{"due, cancel", (*sharedBatch).scheduleJob, []func(*sharedBatch){(*sharedBatch).becomeDue, (*sharedBatch).cancel}, job.Cancelled},
	} {
		orders := permutations(len(tt.ops))
		if testing.Short() {
			orders = orders[:1]
		}
		for _, order := range orders {
			t.Run(fmt.Sprint(tt.name, order), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					p := newSharedBatch(t)
					tt.begin(p)
					watcher := watchJob(p.harness, p.id)
					synctest.Wait()
					p.holdCommits()
					for _, i := range order {
						tt.ops[i](p)
						synctest.Wait()
					}
					p.releaseCommits()
					synctest.Wait()
					watcher.checkAgainstStore(t, p, tt.want)
					watcher.close()
				})
			})
		}
	}
}

// permutations returns all orders of n things.
func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, rest := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(rest), at, n-1))
		}
	}
	return all
}

// sharedBatch is a job and the ops on it that share a batch.
type sharedBatch struct {
	*harness
	faults  *faulty.Store
	gate    chan struct{}
	pending sync.WaitGroup

	id    job.ID
	lease job.Lease // lease of the job, or of the job in the only slot
}

func newSharedBatch(t *testing.T) *sharedBatch {
	h, s := newFaultyHarness(t, faulty.Plan{})
	h.startWorker(1)
	return &sharedBatch{harness: h, faults: s}
}

// holdCommits delays the next batch, so that the following ops share it.
func (p *sharedBatch) holdCommits() {
	p.gate = make(chan struct{})
	gate := p.gate
	p.faults.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-gate }})
	p.async(func(ctx context.Context) {
		_, _, _ = p.Submit(ctx, engine.Request{Owner: local, Queue: "wide"})
	})
	synctest.Wait()
}

func (p *sharedBatch) releaseCommits() {
	close(p.gate)
	p.pending.Wait()
}

func (p *sharedBatch) async(f func(context.Context)) {
	p.pending.Go(func() { f(context.Background()) })
}

func (p *sharedBatch) runJob() {
	p.id = p.submit(engine.Request{}).ID
	c := <-p.jobs
	p.lease = c.Lease()
}

func (p *sharedBatch) runCancelledJob() {
	p.runJob()
	if _, err := p.Cancel(context.Background(), local, p.id); err != nil {
		p.t.Fatal(err)
	}
}

// queueJob puts the job behind another job, which has the only slot.
func (p *sharedBatch) queueJob() {
	p.runJob()
	p.id = p.submit(engine.Request{}).ID
}

func (p *sharedBatch) scheduleJob() {
	p.id = p.submit(engine.Request{Delay: time.Minute}).ID
}

func (p *sharedBatch) doNothing() {}

func (p *sharedBatch) cancel() {
	p.async(func(ctx context.Context) { _, _ = p.Cancel(ctx, local, p.id) })
}

func (p *sharedBatch) delete() {
	p.async(func(ctx context.Context) { _ = p.Delete(ctx, local, p.id) })
}

func (p *sharedBatch) retry() {
	p.async(func(ctx context.Context) { _, _ = p.Retry(ctx, local, p.id) })
}

func (p *sharedBatch) appendOutput() {
	p.async(func(ctx context.Context) { _ = p.Append(ctx, p.lease, textEntry(1, "a"), nil) })
}

func (p *sharedBatch) finishAs(o job.Outcome) {
	p.async(func(ctx context.Context) { _, _ = p.Finish(ctx, p.lease, o) })
}

func (p *sharedBatch) fail() {
	p.finishAs(job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Retryable}})
}
func (p *sharedBatch) failForGood() {
	p.finishAs(job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Final}})
}
func (p *sharedBatch) succeed()   { p.finishAs(job.Outcome{}) }
func (p *sharedBatch) release()   { p.finishAs(job.Outcome{Released: true}) }
func (p *sharedBatch) freeSlot()  { p.finishAs(job.Outcome{}) }
func (p *sharedBatch) becomeDue() { time.Sleep(time.Minute + time.Second) } // the sweep submits the op

// jobWatcher collects the updates of a watch.
type jobWatcher struct {
	watch *engine.Watch
	stop  context.CancelFunc
	done  chan struct{} // closed when no more updates are read

	mu sync.Mutex
	// Guarded by mu.
	jobs []job.Job
	err  error
}

// watchJob watches a job to its end.
func watchJob(h *harness, id job.ID) *jobWatcher {
	w, err := h.Watch(context.Background(), local, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	h.t.Cleanup(stop)
	f := &jobWatcher{watch: w, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			u, err := w.Next(ctx)
			f.mu.Lock()
			f.err = err
			if err == nil {
				f.jobs = append(f.jobs, *u.Job)
			}
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return f
}

// close ends the watch.
func (f *jobWatcher) close() {
	f.stop()
	<-f.done // a Watch is used by one goroutine at a time
	f.watch.Close()
}

// checkAgainstStore compares the last update with the stored job.
func (f *jobWatcher) checkAgainstStore(t *testing.T, p *sharedBatch, want job.State) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.jobs {
		if i > 0 && f.jobs[i].Revision < f.jobs[i-1].Revision {
			t.Errorf("after %s, %d, the watcher got %s, %d", f.jobs[i-1].State, f.jobs[i-1].Revision, f.jobs[i].State, f.jobs[i].Revision)
		}
	}
	stored, err := p.store.Job(context.Background(), local, p.id)
	if want == 0 {
		if job.CodeOf(err) != job.NotFound || job.CodeOf(f.err) != job.NotFound && !errors.Is(f.err, io.EOF) {
			t.Errorf("the job is %s, %v; its watcher got %v", stored.State, err, f.err)
		}
		return
	}
	last := f.jobs[len(f.jobs)-1]
	if last.State.Ended() && stored.Revision > last.Revision {
		return // it was notified of the end before the retry
	}
	if err != nil || stored.State != want || last.State != want || last.Revision != stored.Revision || !last.RunAt.Equal(stored.RunAt) || !last.FinishedAt.Equal(stored.FinishedAt) {
		t.Errorf("the job is %s, %d, %v, and the watcher has %s, %d; want %s", stored.State, stored.Revision, err, last.State, last.Revision, want)
	}
	if want.Ended() != errors.Is(f.err, io.EOF) {
		t.Errorf("the job is %s, and its watcher got %v", want, f.err)
	}
}
