package engine_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// warnings returns the texts of the warnings in a log.
func warnings(log string) (texts []string) {
	for line := range strings.Lines(log) {
		if _, rest, found := strings.Cut(line, "level=WARN msg="); found {
			texts = append(texts, strings.TrimSpace(rest))
		}
	}
	return texts
}

// An attempt that failed for a reason outside its job is one warning, and so is a job that
// ended as failed. A wait that was asked for, a success and a cancel are none.
func TestFailuresAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := startWithConfig(t, engine.Config{Store: newStore(t), Queues: queues(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	h.startWorker(1)
	next := func() job.Claimed { h.submit(engine.Request{}); return <-h.jobs }
	broken := &job.Fault{Code: "upstream_unreachable", Message: "The model refuses connections.", Class: job.Retryable, Err: errors.New("connect: refused")}

	h.finish(next(), job.Outcome{})
	h.finish(next(), job.Outcome{Cancelled: true})
	h.finish(next(), job.Outcome{Fault: &job.Fault{Code: "circuit_open", Class: job.Wait, RetryAfter: time.Millisecond}})
	h.finish(<-h.jobs, job.Outcome{Fault: broken})
	h.finish(<-h.jobs, job.Outcome{Fault: broken})
	atOnce := policy()
	atOnce.Retry.Backoff = 0
	h.submit(engine.Request{Policy: &atOnce})
	h.finish(<-h.jobs, job.Outcome{Fault: broken})
	h.finish(<-h.jobs, job.Outcome{})
	h.finish(next(), job.Outcome{Fault: &job.Fault{Code: "bad_input", Message: strings.Repeat("x", 2000), Class: job.Final}})
	h.finish(next(), job.Outcome{Fault: &job.Fault{Code: "busy", Message: "The model is busy.", Class: job.Wait, RetryAfter: time.Hour}})
	h.stop()

	got := warnings(log.String())
	want := [][]string{
		{`"an attempt failed"`, "queue=sim", "attempt=1", "code=upstream_unreachable", "The model refuses connections.: connect: refused", "next_try_in=1"},
		{`"an attempt failed"`, "attempt=2", "next_try_in=none"},
		{`"a job failed"`, "job=", "attempt=2", "code=upstream_unreachable"},
		{`"an attempt failed"`, "attempt=1", "next_try_in=0s"},
		{`"a job failed"`, "code=bad_input"},
		{`"a job failed"`, "code=busy", "The model is busy; another wait would be longer than retry.for_s allows (1m0s)"},
	}
	if len(got) != len(want) {
		t.Fatalf("there are %d warnings, want %d:\n%s", len(got), len(want), log.String())
	}
	for i, parts := range want {
		for _, part := range parts {
			if !strings.Contains(got[i], part) {
				t.Errorf("warning %d is\n%s, which lacks %s", i, got[i], part)
			}
		}
		if len(got[i]) > 800 {
			t.Errorf("warning %d has %d bytes", i, len(got[i]))
		}
	}
}

// A log that blocks does not block commits. The failures that it misses are counted.
func TestBlockedLogBlocksNoCommit(t *testing.T) {
	if testing.Short() {
		t.Skip("makes thousands of commits")
	}
	t.Parallel()
	r, w := io.Pipe()
	h := startWithConfig(t, engine.Config{Store: newStore(t), Queues: queues(), Log: slog.New(slog.NewTextHandler(w, nil))})
	h.startWorker(1)
	const failures = 1100
	for range failures {
		h.submit(engine.Request{})
		h.finish(<-h.jobs, job.Outcome{Fault: &job.Fault{Code: "x", Class: job.Final}})
	}
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		text <- string(all)
	}()
	h.stop()
	w.Close()
	lines := warnings(<-text)
	if n := len(lines); n < 1024 || n > failures || !strings.Contains(strings.Join(lines, "\n"), "not_logged=") {
		t.Errorf("%d lines were logged, and the last is %s", n, lines[n-1])
	}
}
