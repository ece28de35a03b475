package exectest

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// complaints are what a recorder says to the test that it is used in.
type complaints []string

func (c *complaints) Errorf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

func TestARecorderComplainsOfMisuse(t *testing.T) {
	for complaint, misuse := range map[string]func(r *Recorder){
		"after Execute returned": func(r *Recorder) { r.Close(); _ = r.Text("late") },
		"after the sink had refused": func(r *Recorder) {
			r.FailAt(1, errors.New("over"))
			_ = r.Text("refused")
			_ = r.Text("again")
		},
		"two goroutines called the sink at once": func(r *Recorder) { r.busy.Store(true); r.ResetTimeouts() },
		"an event is not JSON":                   func(r *Recorder) { _ = r.Event([]byte("{")) },
		"usage is not JSON":                      func(r *Recorder) { r.Usage([]byte("1 token")) },
		"not one line":                           func(r *Recorder) { _ = r.Log("one\ntwo") },
		"percent":                                func(r *Recorder) { _ = r.Progress(job.Progress{Percent: math.NaN()}) },
	} {
		var c complaints
		r := NewRecorder(&c)
		_ = r.Text("fine")
		misuse(r)
		if len(c) != 1 || !strings.Contains(c[0], complaint) {
			t.Errorf("it complained %q, want %q", c, complaint)
		}
	}
}

func TestARecorderRemembersInOrder(t *testing.T) {
	r := NewRecorder(t)
	_ = r.Text("a")
	_ = r.Log("l")
	_ = r.Text("b")
	_ = r.Progress(job.Progress{Percent: 5, Status: "s"})
	got := r.Record()
	if got.Text() != "ab" || len(got.Entries) != 4 || got.Entries[1] != (Entry{job.KindLog, "l"}) || got.Progress()[0].Percent != 5 {
		t.Errorf("it remembers %+v", got)
	}
}
