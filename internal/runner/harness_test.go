package runner

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rule is a promise of the runner and its test.
type rule struct {
	name string
	test func(t *testing.T)
}

// runRules tests every rule in a synctest bubble, where time advances only while all goroutines
// wait.
func runRules(t *testing.T, rules []rule) {
	t.Parallel()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, r.test)
		})
	}
}

// advance moves the bubble's clock by d and waits until every goroutine is blocked again.
func advance(d time.Duration) {
	sleep(d)
	synctest.Wait()
}

// sleep sleeps for d of the bubble's time, which takes no real time.
func sleep(d time.Duration) { time.Sleep(d) }

var errOutage = job.Errorf(job.Unavailable, "the store cannot be reached")

// executorFunc is a function as an executor.
type executorFunc func(ctx context.Context, t exec.Task, out exec.Sink) error

func (executorFunc) Kind() string       { return "test" }
func (executorFunc) TakesFiles() bool   { return false }
func (executorFunc) Check([]byte) error { return nil }

func (s executorFunc) Execute(ctx context.Context, t exec.Task, out exec.Sink) error {
	return s(ctx, t, out)
}

// untilStopped returns an executor that blocks until it is stopped and stores the cause in
// why.
func untilStopped(why *error) executorFunc {
	return func(ctx context.Context, _ exec.Task, _ exec.Sink) error {
		<-ctx.Done()
		*why = context.Cause(ctx)
		return *why
	}
}

// blockUntilStopped is an executor function that blocks until it is stopped.
func blockUntilStopped(ctx context.Context, _ exec.Task, _ exec.Sink) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// returnNil is an executor function that does nothing.
func returnNil(context.Context, exec.Task, exec.Sink) error { return nil }

// ignoreStop returns an executor that blocks until release is closed, even after it was stopped.
func ignoreStop(release <-chan struct{}) executorFunc {
	return func(context.Context, exec.Task, exec.Sink) error {
		<-release
		return nil
	}
}

// harness is a runner with its source. The source stores the runner's writes, and fails the test
// if a write violates the contract of [Source].
type harness struct {
	t      *testing.T
	runner *Runner
	worker job.Worker
	stop   context.CancelFunc
	done   chan error

	// set before the first delivery; called without the lock
	onAppend func([]job.Entry) error
	onFinish func(job.Outcome) error
	onRenew  func([]job.Lease) []error
	hangs    func([]job.Lease) bool // reports whether a renewal gets no answer

	mu           sync.Mutex
	unsubscribed bool // the runner has stopped its subscription
	records      map[job.Token]*record
	renewCalls   [][]job.Lease
}

// record is everything that was written under one lease.
type record struct {
	mu sync.Mutex
	// guarded by mu
	contents
	busy    bool // a write is outstanding
	cursor  int64
	attempt int
}

// contents are the log and the outcome of a record.
type contents struct {
	appends  [][]job.Entry
	entries  []job.Entry
	reports  []job.Progress
	finishes int // calls of Finish
	outcome  *job.Outcome
}

// snapshot returns the contents so far.
func (rec *record) snapshot() contents {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.contents
}

// newHarness starts a runner. It is stopped when the test ends.
func newHarness(t *testing.T, s executorFunc, change ...func(*Config)) *harness {
	h := &harness{t: t, done: make(chan error, 1), records: map[job.Token]*record{}}
	c := Config{Source: h, Queue: "test", Executor: s, Slots: 8, Name: "runner"}
	for _, f := range change {
		f(&c)
	}
	ctx, stop := context.WithCancel(t.Context())
	h.stop = stop
	r := New(c)
	h.runner = r
	go func() { h.done <- r.Run(ctx); close(h.done) }()
	synctest.Wait()
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// close stops the runner. The first call returns the error of Run.
func (h *harness) close() error {
	h.stop()
	return <-h.done
}

// deliver delivers job n to the runner, modified by change.
func (h *harness) deliver(n byte, change ...func(*job.Claimed)) *record {
	c := claimed(n)
	for _, f := range change {
		f(&c)
	}
	c.Left = min(c.Left, c.Job.Policy.Timeouts.Lease)
	rec := &record{cursor: c.Job.Cursor, attempt: c.Job.Attempt}
	h.mu.Lock()
	h.records[c.Token] = rec
	h.mu.Unlock()
	h.worker.Deliver(c)
	return rec
}

func (h *harness) order(n byte, o job.Order) {
	c := claimed(n)
	h.worker.Order(c.Lease(), o)
}

func (h *harness) Consume(w job.Worker) func() {
	h.worker = w
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.unsubscribed = true
	}
}

func (h *harness) Append(_ context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error {
	rec := h.beginWrite(l)
	defer rec.endWrite()
	if len(entries) == 0 {
		h.t.Error("an append without entries")
	}
	if h.onAppend != nil {
		if err := h.onAppend(entries); err != nil {
			return err
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.appends = append(rec.appends, entries)
	h.storeLocked(rec, entries, p)
	return nil
}

func (h *harness) Finish(_ context.Context, l job.Lease, o job.Outcome) (job.State, error) {
	rec := h.beginWrite(l)
	defer rec.endWrite()
	rec.countFinish()
	if h.onFinish != nil {
		if err := h.onFinish(o); err != nil {
			return 0, err
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	h.storeLocked(rec, o.Entries, o.Progress)
	rec.outcome = &o
	return job.Succeeded, nil
}

func (h *harness) FinishAsync(l job.Lease, o job.Outcome, then func(error)) {
	go func() {
		_, err := h.Finish(context.Background(), l, o)
		then(err)
	}()
}

// setRenew sets the answers to renewals from now on.
func (h *harness) setRenew(f func([]job.Lease) []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onRenew = f
}

// setHangs sets which renewals get no answer from now on.
func (h *harness) setHangs(f func([]job.Lease) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangs = f
}

func (h *harness) Renew(ctx context.Context, leases []job.Lease) []error {
	h.mu.Lock()
	h.renewCalls = append(h.renewCalls, leases)
	hangs, onRenew := h.hangs, h.onRenew
	h.mu.Unlock()
	if hangs != nil && hangs(leases) {
		<-ctx.Done()
		return slices.Repeat([]error{ctx.Err()}, len(leases))
	}
	if onRenew != nil {
		return onRenew(leases)
	}
	return make([]error, len(leases))
}

// beginWrite checks that no other write of the lease is outstanding and that its outcome is
// not stored yet.
func (h *harness) beginWrite(l job.Lease) *record {
	h.mu.Lock()
	rec := h.records[l.Token]
	h.mu.Unlock()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.busy {
		h.t.Error("two writes of one lease at once")
	}
	if rec.outcome != nil {
		h.t.Error("a write after the end")
	}
	rec.busy = true
	return rec
}

func (rec *record) endWrite() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.busy = false
}

func (rec *record) countFinish() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.finishes++
}

// renewals returns the calls of Renew so far.
func (h *harness) renewals() [][]job.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.renewCalls
}

// subscribed reports whether the source may still deliver jobs.
func (h *harness) subscribed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.unsubscribed
}

// storeLocked stores entries, whose numbers must continue the log.
func (h *harness) storeLocked(rec *record, entries []job.Entry, p *job.Progress) {
	for _, e := range entries {
		rec.cursor++
		switch {
		case e.Seq != rec.cursor:
			h.t.Errorf("entry %d was written where %d was next", e.Seq, rec.cursor)
		case e.Attempt != rec.attempt || e.Events != 1 || e.Data == nil:
			h.t.Errorf("entry %+v is of attempt %d", e, rec.attempt)
		case e.Kind == job.KindText && !utf8.Valid(e.Data):
			h.t.Errorf("text entry %d is not UTF-8: %q", e.Seq, e.Data)
		}
	}
	rec.entries = append(rec.entries, entries...)
	if p == nil {
		return
	}
	rec.reports = append(rec.reports, *p)
	var last job.Progress
	if err := json.Unmarshal(entries[len(entries)-1].Data, &last); err != nil || last != *p {
		h.t.Errorf("progress %+v came with the entry %q", *p, entries[len(entries)-1].Data)
	}
}

// log returns the stored entries as text: kind and data of each.
func (rec *record) log() string { return formatEntries(rec.snapshot().entries) }

func formatEntries(entries []job.Entry) string {
	var words []string
	for _, e := range entries {
		words = append(words, e.Kind.String()+" "+string(e.Data))
	}
	return strings.Join(words, "; ")
}

// outcome returns the stored outcome and fails the test if there is none.
func (h *harness) outcome(rec *record) job.Outcome {
	h.t.Helper()
	o := rec.snapshot().outcome
	if o == nil {
		h.t.Fatal("the attempt was not finished")
	}
	return *o
}

// running reports whether no outcome is stored.
func (rec *record) running() bool { return rec.snapshot().outcome == nil }

func (h *harness) wantFault(rec *record, class job.Class, code string) {
	h.t.Helper()
	f := h.outcome(rec).Fault
	if f == nil || f.Class != class || f.Code != code || f.Message == "" {
		h.t.Fatalf("the fault is %#v, not of class %d and code %s", f, class, code)
	}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, not %v", what, got, want)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("the error is %v, not %v", got, want)
	}
}

// claimed returns job n as a source would deliver it: its first attempt, with a lease of 30 s
// and no other timeout.
func claimed(n byte) job.Claimed {
	return job.Claimed{
		Job: job.Job{
			ID:          job.ID{15: n},
			Queue:       "test",
			State:       job.Running,
			Attempt:     1,
			MaxAttempts: 4,
			Policy: job.Policy{Timeouts: job.Timeouts{
				Lease:       30 * time.Second,
				CancelGrace: 10 * time.Second,
			}},
		},
		Input: []byte("{}"),
		Token: job.Token{15: n},
		Left:  30 * time.Second,
	}
}

// withTimeouts sets all of a job's timeouts except its lease and its cancel grace.
func withTimeouts(t job.Timeouts) func(*job.Claimed) {
	return func(c *job.Claimed) {
		t.Lease, t.CancelGrace = c.Job.Policy.Timeouts.Lease, c.Job.Policy.Timeouts.CancelGrace
		c.Job.Policy.Timeouts = t
	}
}
