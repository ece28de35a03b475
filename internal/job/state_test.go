package job_test

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Every state's name reads back as the state.
func TestStateNames(t *testing.T) {
	t.Parallel()
	for _, s := range job.States() {
		if back, ok := job.ParseState(s.String()); !ok || back != s || s.String() == "" {
			t.Errorf("%q reads back as %v", s, back)
		}
	}
	if _, ok := job.ParseState(""); ok {
		t.Error("no name is the name of a state")
	}
}

// A succeeded job never moves again. Any other ended job moves only by a retry.
func TestEndedStatesAllowOnlyRetries(t *testing.T) {
	t.Parallel()
	for _, from := range job.States() {
		for _, to := range job.States() {
			legal := job.CanMove(from, to)
			switch {
			case from == job.Succeeded && legal:
				t.Errorf("succeeded → %s is legal", to)
			case from.Ended() && legal && to != job.Queued && to != job.Parked:
				t.Errorf("%s → %s is legal; only a retry may follow an end", from, to)
			case from.Waiting() && legal && (to == job.Succeeded || to == job.Failed):
				t.Errorf("%s → %s is legal although it never ran", from, to)
			case from == to && legal:
				t.Errorf("%s → %s is no move", from, to)
			}
		}
	}
	for _, s := range job.States() {
		if !s.Ended() && s != job.Running && !s.Waiting() {
			t.Errorf("%s is neither waiting, running nor ended", s)
		}
	}
}
