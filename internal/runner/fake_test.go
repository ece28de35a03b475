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

// rule is a promise of the runner and the test that holds it to that.
type rule struct {
	says string
	hold func(t *testing.T)
}

// hold runs every rule, each with a clock of its own that moves by hand.
func hold(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(r.says, func(t *testing.T) { synctest.Test(t, r.hold) })
	}
}

// pass moves the clock of the test, and waits until all that followed is done.
func pass(d time.Duration) {
	elapse(d)
	synctest.Wait()
}

// elapse lets time go by for who calls it: in a test with a clock of its own that
// takes no time.
func elapse(d time.Duration) { time.Sleep(d) }

var errOutage = job.Errorf(job.Unavailable, "the store cannot be reached")

// script is an executor that does what a test says.
type script func(ctx context.Context, t exec.Task, out exec.Sink) error

func (script) Kind() string       { return "script" }
func (script) Check([]byte) error { return nil }

func (s script) Execute(ctx context.Context, t exec.Task, out exec.Sink) error { return s(ctx, t, out) }

// untilStopped is an executor that works until it is told to stop, and then says why
// it was.
func untilStopped(why *error) script {
	return func(ctx context.Context, _ exec.Task, _ exec.Sink) error {
		<-ctx.Done()
		*why = context.Cause(ctx)
		return *why
	}
}

// busy is an executor that works until it is told to stop.
func busy(ctx context.Context, _ exec.Task, _ exec.Sink) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// nothing is an executor that does nothing.
func nothing(context.Context, exec.Task, exec.Sink) error { return nil }

// deaf is an executor that works until the test lets it go, whatever it is told.
func deaf(letGo <-chan struct{}) script {
	return func(context.Context, exec.Task, exec.Sink) error {
		<-letGo
		return nil
	}
}

// house is a runner with its source: it keeps what is written, and fails the test
// when a write breaks the contract.
type house struct {
	t      *testing.T
	runner *Runner
	worker job.Worker
	end    context.CancelFunc
	done   chan error

	// set before the first delivery; called without the lock
	onAppend func([]job.Entry) error
	onFinish func(job.Outcome) error
	onRenew  func([]job.Lease) []error
	hangs    func([]job.Lease) bool // whether a renewal gets no answer

	mu      sync.Mutex
	stopped bool // serving was stopped
	records map[job.Token]*record
	calls   [][]job.Lease
}

// record is what was written with one lease.
type record struct {
	mu sync.Mutex
	// guarded by mu
	written
	busy    bool // a write is outstanding
	cursor  int64
	attempt int
}

// written is what a record holds of the log and of the end.
type written struct {
	appends [][]job.Entry
	said    []job.Entry
	reports []job.Progress
	tries   int // of finish
	outcome *job.Outcome
}

// now is what was written until now.
func (rec *record) now() written {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.written
}

// open starts a runner, and stops it when the test ends.
func open(t *testing.T, s script, change ...func(*Config)) *house {
	h := &house{t: t, done: make(chan error, 1), records: map[job.Token]*record{}}
	c := Config{Source: h, Queue: "test", Executor: s, Slots: 8, Name: "runner"}
	for _, f := range change {
		f(&c)
	}
	ctx, end := context.WithCancel(t.Context())
	h.end = end
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

// close stops the runner and returns what Run returned, the first time.
func (h *house) close() error {
	h.end()
	return <-h.done
}

// deliver gives the runner a job, changed as the test wants it.
func (h *house) deliver(n byte, change ...func(*job.Claimed)) *record {
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

func (h *house) order(n byte, o job.Order) {
	c := claimed(n)
	h.worker.Order(c.Lease(), o)
}

func (h *house) Consume(w job.Worker) func() {
	h.worker = w
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.stopped = true
	}
}

func (h *house) Append(_ context.Context, l job.Lease, entries []job.Entry, p *job.Progress) error {
	rec := h.begin(l)
	defer rec.over()
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
	h.keepLocked(rec, entries, p)
	return nil
}

func (h *house) Finish(_ context.Context, l job.Lease, o job.Outcome) (job.State, error) {
	rec := h.begin(l)
	defer rec.over()
	rec.tried()
	if h.onFinish != nil {
		if err := h.onFinish(o); err != nil {
			return 0, err
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	h.keepLocked(rec, o.Entries, o.Progress)
	rec.outcome = &o
	return job.Succeeded, nil
}

func (h *house) FinishAsync(l job.Lease, o job.Outcome, then func(error)) {
	go func() {
		_, err := h.Finish(context.Background(), l, o)
		then(err)
	}()
}

// renewBy sets what renewals are answered from now on.
func (h *house) renewBy(f func([]job.Lease) []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onRenew = f
}

// hangBy sets which renewals get no answer from now on.
func (h *house) hangBy(f func([]job.Lease) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangs = f
}

func (h *house) Renew(ctx context.Context, leases []job.Lease) []error {
	h.mu.Lock()
	h.calls = append(h.calls, leases)
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

// begin notes that a write is outstanding: the only one of its lease, before its end.
func (h *house) begin(l job.Lease) *record {
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

func (rec *record) over() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.busy = false
}

func (rec *record) tried() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.tries++
}

// renewals are the calls to renew until now.
func (h *house) renewals() [][]job.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// serves says whether the source may still deliver.
func (h *house) serves() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.stopped
}

// keepLocked keeps entries, which continue the log.
func (h *house) keepLocked(rec *record, entries []job.Entry, p *job.Progress) {
	for _, e := range entries {
		rec.cursor++
		switch {
		case e.Seq != rec.cursor:
			h.t.Errorf("entry %d came where %d was next", e.Seq, rec.cursor)
		case e.Attempt != rec.attempt || e.Events != 1 || e.Data == nil:
			h.t.Errorf("entry %+v is of attempt %d", e, rec.attempt)
		case e.Kind == job.Text && !utf8.Valid(e.Data):
			h.t.Errorf("text entry %d is not UTF-8: %q", e.Seq, e.Data)
		}
	}
	rec.said = append(rec.said, entries...)
	if p == nil {
		return
	}
	rec.reports = append(rec.reports, *p)
	var last job.Progress
	if err := json.Unmarshal(entries[len(entries)-1].Data, &last); err != nil || last != *p {
		h.t.Errorf("progress %+v came with the entry %q", *p, entries[len(entries)-1].Data)
	}
}

// told shows what was stored: a word for each entry, kind and data.
func (rec *record) told() string { return show(rec.now().said) }

func show(entries []job.Entry) string {
	var words []string
	for _, e := range entries {
		words = append(words, e.Kind.String()+" "+string(e.Data))
	}
	return strings.Join(words, "; ")
}

// ended is the outcome; the test fails when there is none.
func (h *house) ended(rec *record) job.Outcome {
	h.t.Helper()
	o := rec.now().outcome
	if o == nil {
		h.t.Fatal("the attempt was not finished")
	}
	return *o
}

// open says whether the attempt has no end yet.
func (rec *record) open() bool { return rec.now().outcome == nil }

func (h *house) wantFault(rec *record, class job.Class, code string) {
	h.t.Helper()
	f := h.ended(rec).Fault
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

// claimed is a job as a source delivers it: its first attempt, with a lease of 30 s
// and no other clock. n tells it from others.
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

// clocked sets a job's clocks, keeping its lease and its grace.
func clocked(t job.Timeouts) func(*job.Claimed) {
	return func(c *job.Claimed) {
		t.Lease, t.CancelGrace = c.Job.Policy.Timeouts.Lease, c.Job.Policy.Timeouts.CancelGrace
		c.Job.Policy.Timeouts = t
	}
}
