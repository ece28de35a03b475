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

// Ops on one job share a batch, asked for in any order. Whoever follows the job
// is told of it as the store has it then, and never of an earlier time after a later one.
func TestOpsOnOneJobInOneBatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// begin brings the job to where the ops find it.
		begin func(p *pair)
		ops   []func(p *pair)
		want  job.State // 0 for a job that is gone
	}{
		{"cancel, failing finish", (*pair).run, []func(*pair){(*pair).cancel, (*pair).fail}, job.Cancelled},
		{"cancel, successful finish", (*pair).run, []func(*pair){(*pair).cancel, (*pair).succeed}, job.Succeeded},
		{"cancel, hand back", (*pair).run, []func(*pair){(*pair).cancel, (*pair).handBack}, job.Cancelled},
		{"delete, failing finish", (*pair).run, []func(*pair){(*pair).delete, (*pair).fail}, 0},
		{"delete, successful finish", (*pair).run, []func(*pair){(*pair).delete, (*pair).succeed}, 0},
		{"output, failing finish of a cancelled job", (*pair).runCancelled, []func(*pair){(*pair).say, (*pair).fail}, job.Cancelled},
		{"retry, failure for good", (*pair).run, []func(*pair){(*pair).retry, (*pair).failForGood}, job.Running},
		{"retry, cancel, failure for good", (*pair).run, []func(*pair){(*pair).retry, (*pair).cancel, (*pair).failForGood}, job.Running},
		{"delete, cancel, failing finish", (*pair).run, []func(*pair){(*pair).delete, (*pair).cancel, (*pair).fail}, 0},
		{"cancel, claim", (*pair).queue, []func(*pair){(*pair).cancel, (*pair).freeSlot}, job.Cancelled},
		{"finish, claim", (*pair).run, []func(*pair){(*pair).handBack, (*pair).nothing}, job.Running},
		{"due, cancel", (*pair).schedule, []func(*pair){(*pair).becomeDue, (*pair).cancel}, job.Cancelled},
	} {
		for _, order := range orders(len(tt.ops)) {
			t.Run(fmt.Sprint(tt.name, order), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t)
					defer p.stop()
					tt.begin(p)
					told := followJob(p.house, p.id)
					synctest.Wait()
					p.hold()
					for _, i := range order {
						tt.ops[i](p)
						synctest.Wait()
					}
					p.release()
					synctest.Wait()
					told.check(t, p, tt.want)
					told.watch.Close()
				})
			})
		}
	}
}

// orders are all orders of so many things.
func orders(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, rest := range orders(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(rest), at, n-1))
		}
	}
	return all
}

// pair is a job on which ops are asked for.
type pair struct {
	*house
	faults *faulty.Store
	held   chan struct{}
	asking sync.WaitGroup

	id    job.ID
	lease job.Lease // of the job, or of the one that has the only slot
}

func newPair(t *testing.T) *pair {
	h, s := breaking(t, faulty.Plan{})
	h.serve(1)
	return &pair{house: h, faults: s}
}

// hold keeps the next batch from being gathered.
func (p *pair) hold() {
	p.held = make(chan struct{})
	held := p.held
	p.faults.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-held }})
	p.ask(func(ctx context.Context) {
		_, _, _ = p.Submit(ctx, engine.Request{Owner: local, Queue: "wide"})
	})
	synctest.Wait()
}

func (p *pair) release() {
	close(p.held)
	p.asking.Wait()
}

func (p *pair) ask(f func(context.Context)) { p.asking.Go(func() { f(context.Background()) }) }

func (p *pair) run() {
	p.id = p.submit(engine.Request{}).ID
	c := <-p.jobs
	p.lease = c.Lease()
}

func (p *pair) runCancelled() {
	p.run()
	if _, err := p.Cancel(context.Background(), local, p.id); err != nil {
		p.t.Fatal(err)
	}
}

// queue puts the job behind another, which has the only slot.
func (p *pair) queue() {
	p.run()
	p.id = p.submit(engine.Request{}).ID
}

func (p *pair) schedule() {
	p.id = p.submit(engine.Request{Delay: time.Minute}).ID
}

func (p *pair) nothing() {}

func (p *pair) cancel() {
	p.ask(func(ctx context.Context) { _, _ = p.Cancel(ctx, local, p.id) })
}

func (p *pair) delete() {
	p.ask(func(ctx context.Context) { _ = p.Delete(ctx, local, p.id) })
}

func (p *pair) retry() {
	p.ask(func(ctx context.Context) { _, _ = p.Retry(ctx, local, p.id) })
}

func (p *pair) say() {
	p.ask(func(ctx context.Context) { _ = p.Append(ctx, p.lease, text(1, "a"), nil) })
}

func (p *pair) finishAs(o job.Outcome) {
	p.ask(func(ctx context.Context) { _, _ = p.Finish(ctx, p.lease, o) })
}

func (p *pair) fail() { p.finishAs(job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Retryable}}) }
func (p *pair) failForGood() {
	p.finishAs(job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Final}})
}
func (p *pair) succeed()   { p.finishAs(job.Outcome{}) }
func (p *pair) handBack()  { p.finishAs(job.Outcome{Released: true}) }
func (p *pair) freeSlot()  { p.finishAs(job.Outcome{}) }
func (p *pair) becomeDue() { time.Sleep(time.Minute + time.Second) } // the sweep asks for it

// told is what a follower of a job was told.
type told struct {
	watch *engine.Watch
	done  chan struct{} // closed at the end

	mu sync.Mutex
	// Guarded by mu.
	jobs []job.Job
	err  error
}

// followJob follows a job to its end.
func followJob(h *house, id job.ID) *told {
	w, err := h.Watch(context.Background(), local, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	f := &told{watch: w, done: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	h.t.Cleanup(stop)
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

// check compares what was told last with what is stored.
func (f *told) check(t *testing.T, p *pair, want job.State) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.jobs {
		if i > 0 && f.jobs[i].Revision < f.jobs[i-1].Revision {
			t.Errorf("after %s, %d, the follower was told of %s, %d", f.jobs[i-1].State, f.jobs[i-1].Revision, f.jobs[i].State, f.jobs[i].Revision)
		}
	}
	stored, err := p.store.Job(context.Background(), local, p.id)
	if want == 0 {
		if job.CodeOf(err) != job.NotFound || job.CodeOf(f.err) != job.NotFound && !errors.Is(f.err, io.EOF) {
			t.Errorf("the job is %s, %v; its follower was told %v", stored.State, err, f.err)
		}
		return
	}
	last := f.jobs[len(f.jobs)-1]
	if last.State.Ended() && stored.Revision > last.Revision {
		return // it was quick: it was told of the end before the retry
	}
	if err != nil || stored.State != want || last.State != want || last.Revision != stored.Revision || !last.RunAt.Equal(stored.RunAt) || !last.FinishedAt.Equal(stored.FinishedAt) {
		t.Errorf("the job is %s, %d, %v, and the follower knows it as %s, %d; want %s", stored.State, stored.Revision, err, last.State, last.Revision, want)
	}
	if want.Ended() != errors.Is(f.err, io.EOF) {
		t.Errorf("the job is %s, and its follower was told %v", want, f.err)
	}
}
