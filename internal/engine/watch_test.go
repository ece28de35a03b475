package engine_test

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/faulty"
)

// Random ops on jobs share batches at random. In the end the watcher of each job has the state
// that the store has, and it never got an earlier state after a later one.
func TestWatchersAgreeWithStore(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue { // fewer checks than by default, because each takes long
		checks := "30"
		if testing.Short() {
			checks = "3"
		}
		_ = f.Value.Set(checks)
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 5, 60).Draw(r, "steps")
		var wrong error
		synctest.Test(t, func(t *testing.T) {
			m := newWatchedJobs(t)
			defer m.close()
			for i, s := range steps {
				m.apply(s)
				synctest.Wait()
				if err := m.compareWithStore(); err != nil {
					wrong = fmt.Errorf("after step %d, %s: %w", i, s.name, err)
					return
				}
			}
		})
		if wrong != nil {
			r.Fatal(wrong)
		}
	})
}

// step is one step of a random history. The number of its job is taken modulo the number of
// jobs, because the steps are chosen before it is known how many jobs they create.
type step struct {
	name string
	job  int
	key  string
}

func drawStep(r *rapid.T) step {
	return step{
		name: rapid.SampledFrom([]string{
			"submit", "submit", "delay", "expire", "succeed", "fail", "fail for good", "release", "append",
			"cancel", "cancel", "retry", "delete", "pause", "resume", "pass", "pass", "hold", "release",
		}).Draw(r, "step"),
		job: rapid.IntRange(0, 9).Draw(r, "job"),
		key: rapid.SampledFrom([]string{"", "a", "b"}).Draw(r, "key"),
	}
}

// watchedJobs is an engine with a watcher for each job.
type watchedJobs struct {
	*harness
	faults  *faulty.Store
	pending sync.WaitGroup
	gate    chan struct{} // delays the commits until it is closed; may be nil

	ids      []job.ID
	watchers map[job.ID]*jobWatcher
	appended map[job.ID]int64

	mu     sync.Mutex
	claims map[job.ID]job.Claimed // guarded by mu
}

func newWatchedJobs(t *testing.T) *watchedJobs {
	q := queues()
	q[0].KeyRunning, q[0].MaxDepth, q[0].MaxAttempts = 1, 1000, 3
	s := faulty.New(newStore(t), faulty.Plan{})
	m := &watchedJobs{
		harness: startWithQueues(t, s, q), faults: s,
		watchers: map[job.ID]*jobWatcher{}, appended: map[job.ID]int64{}, claims: map[job.ID]job.Claimed{},
	}
	t.Cleanup(m.Consume(job.Worker{
		Name: "local", Queue: "sim", Slots: 2,
		Deliver: func(c job.Claimed) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.claims[c.Job.ID] = c
		},
		Order: func(job.Lease, job.Order) {},
	}))
	return m
}

func (m *watchedJobs) close() {
	m.releaseCommits()
	for _, f := range m.watchers {
		f.close()
	}
	m.stop()
}

func (m *watchedJobs) async(f func(context.Context)) {
	m.pending.Go(func() { f(context.Background()) })
}

// releaseCommits lets commits continue, and waits for the pending calls.
func (m *watchedJobs) releaseCommits() {
	if m.gate != nil {
		close(m.gate)
		m.gate = nil
	}
	m.pending.Wait()
}

func (m *watchedJobs) apply(s step) {
	switch s.name {
	case "submit", "delay", "expire":
		m.create(s)
		return
	case "pass":
		time.Sleep(3 * time.Second)
		return
	case "pause", "resume":
		m.async(func(ctx context.Context) { _, _ = m.SetPaused(ctx, "sim", s.name == "pause") })
		return
	case "hold":
		m.holdCommits()
		return
	case "release":
		m.releaseCommits()
		return
	}
	if len(m.ids) > 0 {
		m.change(s, m.ids[s.job%len(m.ids)])
	}
}

// create submits a job and watches it.
func (m *watchedJobs) create(s step) {
	m.releaseCommits()
	r := engine.Request{ID: job.NewID(), Owner: local, Queue: "sim", Key: s.key}
	p := policy()
	p.Retry.Backoff = 2 * time.Second
	switch s.name {
	case "delay":
		r.Delay = 2 * time.Second
	case "expire":
		p.Timeouts.Queue = 4 * time.Second
	}
	r.Policy = &p
	if _, _, err := m.Submit(context.Background(), r); err != nil {
		m.t.Fatal(err)
	}
	m.ids = append(m.ids, r.ID)
	m.watchers[r.ID] = watchJob(m.harness, r.ID)
}

// holdCommits delays the commits, so that the following ops share a batch.
func (m *watchedJobs) holdCommits() {
	if m.gate != nil {
		return
	}
	gate := make(chan struct{})
	m.gate = gate
	m.faults.Next(faulty.Fault{On: faulty.Op[store.Submit], Before: func() { <-gate }})
	m.async(func(ctx context.Context) { _, _, _ = m.Submit(ctx, engine.Request{Owner: local, Queue: "wide"}) })
}

func (m *watchedJobs) change(s step, id job.ID) {
	switch s.name {
	case "cancel":
		m.async(func(ctx context.Context) { _, _ = m.Cancel(ctx, local, id) })
	case "retry":
		m.async(func(ctx context.Context) { _, _ = m.Retry(ctx, local, id) })
	case "delete":
		m.async(func(ctx context.Context) { _ = m.Delete(ctx, local, id) })
	default:
		m.workerStep(s, id)
	}
}

// workerStep does one step of the worker of a job.
func (m *watchedJobs) workerStep(s step, id job.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, holds := m.claims[id]
	if !holds {
		return
	}
	if s.name == "append" {
		m.appended[id]++
		entries := textEntry(m.appended[id], "a")
		m.async(func(ctx context.Context) { _ = m.Append(ctx, c.Lease(), entries, nil) })
		return
	}
	delete(m.claims, id)
	o := map[string]job.Outcome{
		"succeed":       {},
		"fail":          {Fault: &job.Fault{Code: "x", Class: job.Retryable}},
		"fail for good": {Fault: &job.Fault{Code: "x", Class: job.Final}},
		"release":       {Released: true},
	}[s.name]
	m.async(func(ctx context.Context) { _, _ = m.Finish(ctx, c.Lease(), o) })
}

// compareWithStore compares every job with the last update of its watcher. A watch ends with its
// job; if the job is retried, a new watcher replaces it.
func (m *watchedJobs) compareWithStore() error {
	for _, id := range m.ids {
		f := m.watchers[id]
		j, err := m.store.Job(context.Background(), local, id)
		switch {
		case job.CodeOf(err) == job.NotFound && watchError(f) != nil:
			continue
		case job.CodeOf(err) == job.NotFound:
			return fmt.Errorf("%s was deleted, and its watcher was not notified", id)
		case err != nil:
			return err
		}
		if err := f.matches(&j); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		if watchError(f) != nil && !j.State.Ended() {
			f.close()
			m.watchers[id] = watchJob(m.harness, id)
			synctest.Wait()
		}
	}
	return nil
}

// watchError returns the error that ended a watch, or nil if it has not ended.
func watchError(f *jobWatcher) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// matches returns an error if the last update differs from the stored job, or if an earlier
// revision came after a later one.
func (f *jobWatcher) matches(j *job.Job) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 1; i < len(f.jobs); i++ {
		if a, b := &f.jobs[i-1], &f.jobs[i]; b.Revision < a.Revision || b.Revision == a.Revision && b.State != a.State || b.Cursor < a.Cursor {
			return fmt.Errorf("after %s, %d, it got %s, %d", a.State, a.Revision, b.State, b.Revision)
		}
	}
	last := &f.jobs[len(f.jobs)-1]
	if f.err != nil && last.State.Ended() && j.Revision > last.Revision {
		return nil // the job was retried after the watch had ended
	}
	if last.State != j.State || last.Revision != j.Revision || last.Cursor != j.Cursor || last.Attempt != j.Attempt || !last.RunAt.Equal(j.RunAt) {
		return fmt.Errorf("it got %s, %d, and the store has %s, %d", last.State, last.Revision, j.State, j.Revision)
	}
	return nil
}
