package exectest

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// reportedErrors are the errors that a recorder reported to its test.
type reportedErrors []string

func (c *reportedErrors) Errorf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

func TestRecorderReportsMisuse(t *testing.T) {
	t.Parallel()
	for want, misuse := range map[string]func(r *Recorder){
		"after Execute returned": func(r *Recorder) { r.Close(); _ = r.Text("late") },
		"after the sink had returned an error": func(r *Recorder) {
			r.FailAt(1, errors.New("over"))
			_ = r.Text("refused")
			_ = r.Text("again")
		},
		"two goroutines called the sink at once": func(r *Recorder) { r.inCall.Store(true); r.ResetTimeouts() },
		"an event is not JSON":                   func(r *Recorder) { _ = r.Event([]byte("{")) },
		"usage is not JSON":                      func(r *Recorder) { r.Usage([]byte("1 token")) },
		"not one line":                           func(r *Recorder) { _ = r.Log("one\ntwo") },
		"percent":                                func(r *Recorder) { _ = r.Progress(job.Progress{Percent: math.NaN()}) },
	} {
		var errs reportedErrors
		r := NewRecorder(&errs)
		_ = r.Text("fine")
		misuse(r)
		if len(errs) != 1 || !strings.Contains(errs[0], want) {
			t.Errorf("it reported %q, want %q", errs, want)
		}
	}
}

func TestRecorderKeepsOrder(t *testing.T) {
	t.Parallel()
	r := NewRecorder(t)
	_ = r.Text("a")
	_ = r.Log("l")
	_ = r.Text("b")
	_ = r.Progress(job.Progress{Percent: 5, Status: "s"})
	got := r.Record()
	if got.Text() != "ab" || len(got.Entries) != 4 || got.Entries[1] != (Entry{job.KindLog, "l"}) || got.Progress()[0].Percent != 5 {
		t.Errorf("it recorded %+v", got)
	}
}
