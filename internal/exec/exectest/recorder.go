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

// Recorder is a sink that remembers everything, and fails the test when it is
// misused: by two goroutines at once, after Execute returned, after a refusal, or
// with what a sink may not be given.
type Recorder struct {
	t    ErrorReporter
	busy atomic.Bool // a call is under way

	mu      sync.Mutex
	changed sync.Cond
	record  Record
	calls   int   // those that may be refused
	breakAt int   // from this call on they are; 0 for never
	broken  error // with this
	refused bool
	sealed  bool
}

// Record is what an attempt did, so far.
type Record struct {
	Entries []Entry // in order
	Results []job.Result
	Usage   []string
	Resets  int
}

// Entry is one thing that was said. Progress is the JSON of a [job.Progress].
type Entry struct {
	Kind job.Kind
	Data string
}

// ErrorReporter is what of a [testing.T] a recorder needs.
type ErrorReporter interface {
	Errorf(format string, args ...any)
}

// NewRecorder makes an empty recorder.
func NewRecorder(t ErrorReporter) *Recorder {
	r := &Recorder{t: t}
	r.changed.L = &r.mu
	return r
}

// Text joins the pieces of text.
func (r Record) Text() string { return strings.Join(r.OfKind(job.KindText), "") }

// OfKind lists what was said of one kind.
func (r Record) OfKind(kind job.Kind) []string {
	var data []string
	for _, s := range r.Entries {
		if s.Kind == kind {
			data = append(data, s.Data)
		}
	}
	return data
}

// Progress lists the reports of progress.
func (r Record) Progress() []job.Progress {
	var all []job.Progress
	for _, data := range r.OfKind(job.KindProgress) {
		var p job.Progress
		_ = json.Unmarshal([]byte(data), &p)
		all = append(all, p)
	}
	return all
}

// HasText says whether there is any text: a condition for [Recorder.WaitUntil].
func HasText(r Record) bool { return r.Text() != "" }

// Record returns what was recorded so far.
func (r *Recorder) Record() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copied()
}

// WaitUntil waits until the record is as wanted.
func (r *Recorder) WaitUntil(wanted func(Record) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !wanted(r.copied()) && !r.sealed {
		r.changed.Wait()
	}
}

// FailAt makes the n-th call that may be refused, and all after it, return err.
func (r *Recorder) FailAt(n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breakAt, r.broken = n, err
}

// Close ends the recording: any call from now on fails the test.
func (r *Recorder) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = true
	r.changed.Broadcast()
}

// ResetTimeouts records that the work begins only now.
func (r *Recorder) ResetTimeouts() {
	defer r.enter("ResetTimeouts")()
	r.record.Resets++
}

// Text records a piece of text.
func (r *Recorder) Text(piece string) error { return r.say(job.KindText, piece) }

// Event records a JSON value.
func (r *Recorder) Event(value []byte) error {
	if !json.Valid(value) {
		r.t.Errorf("an event is not JSON: %s", shown(value))
	}
	return r.say(job.KindJSON, string(value))
}

// Log records a line.
func (r *Recorder) Log(line string) error {
	if strings.Contains(line, "\n") || !utf8.ValidString(line) {
		r.t.Errorf("a log line is not one line of UTF-8: %q", line)
	}
	return r.say(job.KindLog, line)
}

// Progress records a report of progress.
func (r *Recorder) Progress(p job.Progress) error {
	if !(p.Percent >= 0 && p.Percent <= 100) {
		r.t.Errorf("progress of %v percent", p.Percent)
		p.Percent = 0
	}
	data, _ := json.Marshal(p)
	return r.say(job.KindProgress, string(data))
}

// Result records a result.
func (r *Recorder) Result(result job.Result) {
	defer r.enter("Result")()
	r.record.Results = append(r.record.Results, result)
}

// Usage records what the work cost.
func (r *Recorder) Usage(usage []byte) {
	if !json.Valid(usage) {
		r.t.Errorf("usage is not JSON: %s", shown(usage))
	}
	defer r.enter("Usage")()
	r.record.Usage = append(r.record.Usage, string(usage))
}

func (r *Recorder) say(kind job.Kind, data string) error {
	defer r.enter(kind.String())()
	if r.refused {
		r.t.Errorf("%s %q was said after the sink had refused", kind, shown([]byte(data)))
	}
	r.calls++
	if r.breakAt > 0 && r.calls >= r.breakAt {
		r.refused = true
		return r.broken
	}
	r.record.Entries = append(r.record.Entries, Entry{kind, data})
	return nil
}

// enter begins a call and returns what ends it.
func (r *Recorder) enter(call string) (leave func()) {
	if !r.busy.CompareAndSwap(false, true) {
		r.t.Errorf("two goroutines called the sink at once (%s)", call)
	}
	r.mu.Lock()
	if r.sealed {
		r.t.Errorf("%s was called after Execute returned", call)
	}
	return func() {
		r.changed.Broadcast()
		r.mu.Unlock()
		r.busy.Store(false)
	}
}

func (r *Recorder) copied() Record {
	c := r.record
	c.Entries, c.Results, c.Usage = slices.Clone(c.Entries), slices.Clone(c.Results), slices.Clone(c.Usage)
	return c
}
