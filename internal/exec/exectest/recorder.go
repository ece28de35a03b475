package exectest

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Recorder is a sink that records every call. It fails the test when it is misused: by two
// goroutines at once, after Execute has returned, after it returned an error, or with invalid
// values.
type Recorder struct {
	t      ErrorReporter
	inCall atomic.Bool // a call is running
	killed chan struct{}
	kill   sync.Once // closes killed

	mu      sync.Mutex
	changed sync.Cond
	record  Record
	calls   int   // number of calls of the methods that return an error
	failAt  int   // calls with this number and later ones fail; 0 for none
	failErr error // the error that they return
	failed  bool  // a call has failed
	closed  bool  // Execute has returned
}

// Record is everything that an attempt has written so far.
type Record struct {
	Entries []Entry // in order
	Results []job.Result
	Usage   []string
	Resets  int // number of calls of ResetTimeouts
	Alive   int // number of calls of Alive
}

// Entry is one piece of output. The data of progress is the JSON of a [job.Progress].
type Entry struct {
	Kind job.Kind
	Data string
}

// ErrorReporter is the part of [testing.T] that a recorder uses.
type ErrorReporter interface {
	Errorf(format string, args ...any)
}

// NewRecorder makes an empty recorder.
func NewRecorder(t ErrorReporter) *Recorder {
	r := &Recorder{t: t, killed: make(chan struct{})}
	r.changed.L = &r.mu
	return r
}

// Text returns all text, joined.
func (r Record) Text() string { return strings.Join(r.OfKind(job.KindText), "") }

// OfKind returns the data of the entries of one kind.
func (r Record) OfKind(kind job.Kind) []string {
	var data []string
	for _, s := range r.Entries {
		if s.Kind == kind {
			data = append(data, s.Data)
		}
	}
	return data
}

// Progress returns the progress reports.
func (r Record) Progress() []job.Progress {
	var all []job.Progress
	for _, data := range r.OfKind(job.KindProgress) {
		var p job.Progress
		_ = json.Unmarshal([]byte(data), &p)
		all = append(all, p)
	}
	return all
}

// HasText reports whether any text was written. It is a condition for [Recorder.WaitUntil].
func HasText(r Record) bool { return r.Text() != "" }

// Record returns the record so far.
func (r *Recorder) Record() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshotLocked()
}

// WaitUntil waits until condition is true, or until the recorder is closed.
func (r *Recorder) WaitUntil(condition func(Record) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !condition(r.snapshotLocked()) && !r.closed {
		r.changed.Wait()
	}
}

// FailAt makes the n-th call of a method that returns an error, and all later ones, return
// err.
func (r *Recorder) FailAt(n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failAt, r.failErr = n, err
}

// Close ends the recording. Any later call fails the test.
func (r *Recorder) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.Broadcast()
}

// ResetTimeouts records the call.
func (r *Recorder) ResetTimeouts() {
	defer r.startCall("ResetTimeouts")()
	r.record.Resets++
}

// Alive records the call.
func (r *Recorder) Alive() {
	defer r.startCall("Alive")()
	r.record.Alive++
}

// Killed returns a channel that [Recorder.Kill] closes.
func (r *Recorder) Killed() <-chan struct{} { return r.killed }

// Kill makes the work end at once.
func (r *Recorder) Kill() { r.kill.Do(func() { close(r.killed) }) }

// Text records a piece of text.
func (r *Recorder) Text(piece string) error { return r.add(job.KindText, piece) }

// Event records a JSON value, which must be valid.
func (r *Recorder) Event(value []byte) error {
	if !json.Valid(value) {
		r.t.Errorf("an event is not JSON: %s", truncate(value))
	}
	return r.add(job.KindJSON, string(value))
}

// Log records a line, which must be one line of UTF-8.
func (r *Recorder) Log(line string) error {
	if strings.Contains(line, "\n") || !utf8.ValidString(line) {
		r.t.Errorf("a log line is not one line of UTF-8: %q", line)
	}
	return r.add(job.KindLog, line)
}

// Progress records a report, whose percentage must be from 0 to 100.
func (r *Recorder) Progress(p job.Progress) error {
	if !(p.Percent >= 0 && p.Percent <= 100) {
		r.t.Errorf("progress of %v percent", p.Percent)
		p.Percent = 0
	}
	data, _ := json.Marshal(p)
	return r.add(job.KindProgress, string(data))
}

// Result records a result.
func (r *Recorder) Result(result job.Result) {
	defer r.startCall("Result")()
	r.record.Results = append(r.record.Results, result)
}

// Usage records the usage, which must be valid JSON.
func (r *Recorder) Usage(usage []byte) {
	if !json.Valid(usage) {
		r.t.Errorf("usage is not JSON: %s", truncate(usage))
	}
	defer r.startCall("Usage")()
	r.record.Usage = append(r.record.Usage, string(usage))
}

func (r *Recorder) add(kind job.Kind, data string) error {
	defer r.startCall(kind.String())()
	if r.failed {
		r.t.Errorf("%s %q was written after the sink had returned an error", kind, truncate([]byte(data)))
	}
	r.calls++
	if r.failAt > 0 && r.calls >= r.failAt {
		r.failed = true
		return r.failErr
	}
	r.record.Entries = append(r.record.Entries, Entry{kind, data})
	return nil
}

// startCall begins a call and returns the function that ends it.
func (r *Recorder) startCall(call string) (leave func()) {
	if !r.inCall.CompareAndSwap(false, true) {
		r.t.Errorf("two goroutines called the sink at once (%s)", call)
	}
	r.mu.Lock()
	if r.closed {
		r.t.Errorf("%s was called after Execute returned", call)
	}
	return func() {
		r.changed.Broadcast()
		r.mu.Unlock()
		r.inCall.Store(false)
	}
}

func (r *Recorder) snapshotLocked() Record {
	c := r.record
	c.Entries, c.Results, c.Usage = slices.Clone(c.Entries), slices.Clone(c.Results), slices.Clone(c.Usage)
	return c
}
