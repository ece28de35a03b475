package engine

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// clock is a clock for a store. The test moves it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// sweepHarness is an engine that sweeps only when the test calls sweep. Only its loop runs.
type sweepHarness struct {
	*Engine
	t        *testing.T
	clock    *clock
	jobs     chan job.Claimed
	orders   chan job.Order
	observer *endingObserver
	stop     func()
}

// endingObserver records the endings of attempts.
type endingObserver struct {
	noObserver
	ended []Ending // the loop writes it before it answers
}

func (s *endingObserver) AttemptEnded(_ string, how Ending, _ time.Duration) {
	s.ended = append(s.ended, how)
}

func newSweepHarness(t *testing.T, renewEvery time.Duration) *sweepHarness {
	t.Helper()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	s := NewTestStore(t, sqlite.Options{Clock: c.Now, Unsynced: true})
	return newSweepHarnessOver(t, c, Config{Store: s, RenewEvery: renewEvery})
}

// newSweepHarnessOver does the same as newSweepHarness, over a given store. It has a queue q and
// a worker with one slot.
func newSweepHarnessOver(t *testing.T, c *clock, cfg Config) *sweepHarness {
	t.Helper()
	q := testQueue(1, 2, job.Timeouts{Lease: 30 * time.Second, CancelGrace: 10 * time.Second})
	q.MaxDepth = 10
	q.Policy.Retry = job.Retry{Backoff: 2 * time.Second}
	observer := &endingObserver{}
	cfg.Queues, cfg.Observer, cfg.Alone = []Queue{q}, observer, true
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &sweepHarness{Engine: e, t: t, clock: c, jobs: make(chan job.Claimed, 10), orders: make(chan job.Order, 10), observer: observer}
	w.stop = RunInBackground(e.loop)
	t.Cleanup(func() { w.stop(); _ = cfg.Store.Close() })
	e.Consume(job.Worker{
		Name: "w", Queue: "q", Slots: 1,
		Deliver: func(c job.Claimed) { w.jobs <- c },
		Order:   func(_ job.Lease, o job.Order) { w.orders <- o },
	})
	return w
}

func (w *sweepHarness) submit(r Request) job.ID {
	w.t.Helper()
	r.Owner.User, r.Queue = "u", "q"
	s, _, err := w.Submit(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.ID
}

func (w *sweepHarness) sweep() {
	w.t.Helper()
	if err := w.sweeper.sweep(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *sweepHarness) get(id job.ID) Snapshot {
	w.t.Helper()
	s, err := w.Get(w.t.Context(), job.Owner{User: "u"}, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// A silent worker loses its job: it gets OrderLost, its slot is free, and the job runs again
// after a backoff. Losses have their own limit: the fifth one fails the job.
func TestSweepReclaimsLapsedLeases(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Nanosecond)
	id := w.submit(Request{MaxAttempts: 1})
	first := <-w.jobs
	w.clock.pass(29 * time.Second)
	w.sweep()
	if got := w.get(id); got.State != job.Running {
		t.Fatalf("a lease was swept before it lapsed: the job is %s", got.State)
	}
	backoff := 2 * time.Second
	for loss := 1; loss < job.MaxLosses; loss++ {
		w.clock.pass(31 * time.Second)
		w.sweep()
		if o := <-w.orders; o != job.OrderLost {
			t.Fatalf("the silent worker was ordered %d", o)
		}
		w.clock.pass(backoff - time.Millisecond)
		w.sweep()
		if got := w.get(id); got.State != job.Scheduled || got.Losses != loss || got.Failure.Code != "worker_lost" {
			t.Fatalf("after %d losses the job is %s, %d lost, %+v", loss, got.State, got.Losses, got.Failure)
		}
		w.clock.pass(time.Millisecond)
		w.sweep()
		if next := <-w.jobs; next.Job.ID != id || next.Job.Attempt != loss+1 {
			t.Fatalf("then attempt %d of %s runs", next.Job.Attempt, next.Job.ID)
		}
		backoff *= 2
	}
	if _, err := w.Finish(t.Context(), first.Lease(), job.Outcome{}); job.CodeOf(err) != job.LeaseLost {
		t.Fatalf("the silent worker finished the job: %v", err)
	}
	w.clock.pass(time.Minute)
	w.sweep()
	if got := w.get(id); got.State != job.Failed || got.Failure.Code != "worker_lost" || !got.Failure.Retryable || got.Losses != job.MaxLosses {
		t.Fatalf("after the last loss the job is %s, %d lost: %+v", got.State, got.Losses, got.Failure)
	}
	if want := slices.Repeat([]Ending{EndedLost}, job.MaxLosses); !slices.Equal(w.observer.ended, want) {
		t.Errorf("the attempts ended as %v, not %v", w.observer.ended, want)
	}
}

// No lease is swept until renewals were possible for two whole intervals.
func TestSweepSparesLeasesAfterOutage(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	id := w.submit(Request{})
	c := <-w.jobs
	w.clock.pass(time.Hour)
	w.sweep()
	if got := w.get(id); got.State != job.Running || got.Attempt != 1 {
		t.Fatalf("the job is %s in attempt %d", got.State, got.Attempt)
	}
	if errs := w.Renew(t.Context(), []job.Lease{c.Lease()}); errs[0] != nil {
		t.Fatalf("a late renewal was refused: %v", errs[0])
	}
}

// A worker that ignores a cancel loses its slot after the grace. Its late result is
// refused, and the job has ended as cancelled.
func TestSweepEndsIgnoredCancels(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	id := w.submit(Request{})
	ignoring := <-w.jobs
	if _, err := w.Cancel(t.Context(), job.Owner{User: "u"}, id); err != nil {
		t.Fatal(err)
	}
	if o := <-w.orders; o != job.OrderCancel {
		t.Fatalf("the worker was ordered %d", o)
	}
	w.clock.pass(9 * time.Second)
	w.sweep()
	if got := w.get(id); got.State != job.Running {
		t.Fatalf("within its grace the job became %s", got.State)
	}
	w.clock.pass(2 * time.Second)
	w.sweep()
	if o := <-w.orders; o != job.OrderLost {
		t.Fatalf("after the grace the worker was ordered %d", o)
	}
	if got := w.get(id); got.State != job.Cancelled {
		t.Fatalf("the job is %s", got.State)
	}
	if want := []Ending{EndedCancelled}; !slices.Equal(w.observer.ended, want) {
		t.Errorf("the attempt ended as %v, not %v", w.observer.ended, want)
	}
	next := w.submit(Request{})
	if c := <-w.jobs; c.Job.ID != next {
		t.Fatal("the slot is not free")
	}
	if _, err := w.Finish(t.Context(), ignoring.Lease(), job.Outcome{}); job.CodeOf(err) != job.LeaseLost {
		t.Fatalf("the late result was answered %v", err)
	}
}

// Delays and backoffs end when the clock reaches their time, and not before.
func TestSweepQueuesDueJobs(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	id := w.submit(Request{Delay: time.Minute})
	w.clock.pass(59 * time.Second)
	w.sweep()
	if got := w.get(id); got.State != job.Scheduled {
		t.Fatalf("too early the job is %s", got.State)
	}
	w.clock.pass(2 * time.Second)
	w.sweep()
	if c := <-w.jobs; c.Job.ID != id {
		t.Fatal("another job runs")
	}
}

// A job that waits longer than its queue timeout expires, with a reason.
func TestSweepExpiresWaitingJobs(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	w.submit(Request{})
	<-w.jobs
	p := w.queues["q"].Policy
	p.Timeouts.Queue = 5 * time.Second
	id := w.submit(Request{Policy: &p})
	w.clock.pass(6 * time.Second)
	w.sweep()
	if got := w.get(id); got.State != job.Expired || got.Failure == nil || got.Failure.Code != "queue_timeout" {
		t.Fatalf("the job is %s: %+v", got.State, got.Failure)
	}
}

// Jobs past their retention are deleted, and no others.
func TestSweepDeletesExpiredHistory(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	old := w.submit(Request{})
	c := <-w.jobs
	if _, err := w.Finish(t.Context(), c.Lease(), job.Outcome{}); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(61 * time.Minute)
	young := w.submit(Request{})
	if err := w.pruner.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(t.Context(), job.Owner{User: "u"}, old); job.CodeOf(err) != job.NotFound {
		t.Fatalf("the job past its time: %v", err)
	}
	w.get(young)
}

// After an outage no lease is swept for a whole renewal interval.
func TestOutageDelaysSweeps(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Nanosecond)
	if !w.sweeper.maySweepLeases() {
		t.Fatal("a healthy engine may not sweep leases")
	}
	w.renewEvery = time.Hour
	w.sweeper.markUnhealthy()
	if w.sweeper.maySweepLeases() {
		t.Fatal("leases may be swept right after an outage")
	}
}

// A sweep that ends a lease frees its slot. The old worker gets OrderLost, and after the backoff
// any worker receives the job.
func TestSweptJobFreesSlot(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Nanosecond)
	second := make(chan job.Claimed, 1)
	id := w.submit(Request{})
	<-w.jobs
	w.Consume(job.Worker{Name: "other", Queue: "q", Slots: 1, Deliver: func(c job.Claimed) { second <- c }})
	w.clock.pass(time.Minute)
	w.sweep()
	if o := <-w.orders; o != job.OrderLost {
		t.Fatalf("the silent worker was ordered %d", o)
	}
	w.clock.pass(2 * time.Second)
	w.sweep()
	var again job.Claimed
	select {
	case again = <-second:
	case again = <-w.jobs:
	}
	if again.Job.ID != id || again.Job.Attempt != 2 {
		t.Fatalf("attempt %d of %s runs", again.Job.Attempt, again.Job.ID)
	}
	if _, err := w.Finish(t.Context(), again.Lease(), job.Outcome{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // both slots are free
		w.submit(Request{})
		select {
		case <-second:
		case <-w.jobs:
		}
	}
}

// If a job is claimed for a consumer that was closed meanwhile, the job is released, and the
// attempt does not count.
func TestJobOfClosedConsumerIsReleased(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	q := w.queues["q"]
	gone := &consumer{Worker: job.Worker{Name: "gone", Queue: "q", Deliver: func(job.Claimed) { t.Error("it was delivered") }}, q: q, stopped: true}
	op := &store.Submit{Job: job.Job{ID: job.NewID(), Owner: job.Owner{User: "u"}, Queue: "q", Priority: 5, MaxAttempts: 1, Policy: q.Policy}}
	op.Token, op.Worker, op.LeaseFor = job.NewToken(), "gone", time.Minute
	if err := w.doUrgent(t.Context(), op); err != nil || op.Err != nil {
		t.Fatal(err, op.Err)
	}
	w.deliver(gone, job.Claimed{Job: op.Job, Token: op.Token}, time.Now())
	if c := <-w.jobs; c.Job.ID != op.Job.ID || c.Job.Attempt != 1 {
		t.Fatalf("attempt %d of %s runs", c.Job.Attempt, c.Job.ID)
	}
}

// A retried job expires like any other job that waits too long.
func TestRetriedJobExpires(t *testing.T) {
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	p := w.queues["q"].Policy
	p.Timeouts.Queue = 5 * time.Second
	id := w.submit(Request{Policy: &p})
	c := <-w.jobs
	if _, err := w.Finish(t.Context(), c.Lease(), job.Outcome{Fault: &job.Fault{Code: "no"}}); err != nil {
		t.Fatal(err)
	}
	w.submit(Request{}) // uses the slot
	<-w.jobs
	if _, err := w.Retry(t.Context(), job.Owner{User: "u"}, id); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(6 * time.Second)
	w.sweep()
	if got := w.get(id); got.State != job.Expired {
		t.Fatalf("the job is %s", got.State)
	}
}
