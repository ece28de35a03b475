package engine

import (
	"bytes"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sqlite"
)

// textEntries returns text entries whose numbers follow after.
func textEntries(after int64, attempt int, data ...[]byte) (entries []job.Entry) {
	for i, d := range data {
		entries = append(entries, job.Entry{Seq: after + int64(i) + 1, Attempt: attempt, Kind: job.KindText, Events: 1, Data: d})
	}
	return entries
}

// An attempt may write 16 MiB, regardless of earlier attempts. A job may write 64 MiB.
func TestOutputLimitsOfAttemptAndJob(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 64 MiB")
	}
	t.Parallel()
	w := newSweepHarness(t, time.Hour)
	id := w.submit(Request{MaxAttempts: 10})
	piece := bytes.Repeat([]byte("x"), job.MaxOutput/4)
	cursor := int64(0)
	for attempt := 1; attempt <= 5; attempt++ {
		c := <-w.jobs
		for range 4 {
			err := w.Append(t.Context(), c.Lease(), textEntries(cursor, attempt, piece), nil)
			if attempt == 5 {
				if job.CodeOf(err) != job.TooLarge {
					t.Fatalf("a job with 64 MiB of output writes more: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cursor++
		}
		if err := w.Append(t.Context(), c.Lease(), textEntries(cursor, attempt, []byte("x")), nil); job.CodeOf(err) != job.TooLarge {
			t.Fatalf("attempt %d writes more than 16 MiB: %v", attempt, err)
		}
		if got := w.get(id); got.OutputBytes != int64(attempt)*job.MaxOutput {
			t.Fatalf("after attempt %d the job has %d bytes of output", attempt, got.OutputBytes)
		}
		w.failAttempt(c)
		w.clock.pass(time.Hour)
		w.sweep()
	}
}

func (w *sweepHarness) failAttempt(c job.Claimed) {
	w.t.Helper()
	if _, err := w.Finish(w.t.Context(), c.Lease(), job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Retryable}}); err != nil {
		w.t.Fatal(err)
	}
}

// With FailAfterOutput, a lost attempt without output is retried, even if earlier attempts had
// output, and also after a restart.
func TestRetryDecisionIgnoresOutputOfEarlierAttempts(t *testing.T) {
	t.Parallel()
	for name, speaks := range map[string]bool{"silent": false, "speaking": true} {
		c := &clock{now: time.Unix(1_800_000_000, 0)}
		s := NewTestStore(t, sqlite.Options{Clock: c.Now, Unsynced: true})
		w := newSweepHarnessOver(t, c, Config{Store: s})
		id := w.submit(Request{Policy: &job.Policy{Retry: job.Retry{AfterOutput: job.FailAfterOutput}}})
		first := <-w.jobs
		if err := w.Append(t.Context(), first.Lease(), textEntries(0, 1, []byte("hello")), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(t.Context(), first.Lease(), job.Outcome{Released: true}); err != nil {
			t.Fatal(err)
		}
		second := <-w.jobs
		entry := job.Entry{Seq: 2, Attempt: 1, Kind: job.KindLog, Events: 1, Data: []byte("a line")}
		if speaks {
			entry.Kind = job.KindText
		}
		if err := w.Append(t.Context(), second.Lease(), []job.Entry{entry}, nil); err != nil {
			t.Fatal(err)
		}
		w.stop()
		again := newSweepHarnessOver(t, c, Config{Store: s})
		want := job.Scheduled
		if speaks {
			want = job.Failed
		}
		if got := again.get(id); got.State != want {
			t.Errorf("after a %s attempt was lost the job is %s, want %s", name, got.State, want)
		}
	}
}
