package engine

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

const (
	maxFailureLines = 1024 // lines that wait for a slow log
	maxFailureText  = 500  // bytes of a fault's text in a line
)

// failureLog writes a warning for each attempt that failed for a reason outside its job, and
// one for each job that ended as failed. It has a goroutine of its own, because a log that
// blocks, such as a stopped terminal, must not block commits. When too many lines wait, it
// counts the others.
type failureLog struct {
	// set once
	log   *slog.Logger
	lines chan func() // each writes one line; never closed

	dropped atomic.Int64
}

func newFailureLog(log *slog.Logger) *failureLog {
	return &failureLog{log: log, lines: make(chan func(), maxFailureLines)}
}

// run writes the lines until ctx ends and none is left.
func (l *failureLog) run(ctx context.Context) {
	for {
		select {
		case write := <-l.lines:
			l.write(write)
		case <-ctx.Done():
			for len(l.lines) > 0 {
				l.write(<-l.lines)
			}
			return
		}
	}
}

func (l *failureLog) write(line func()) {
	line()
	if n := l.dropped.Swap(0); n > 0 {
		l.log.Warn("failures came faster than the log took them", "not_logged", n)
	}
}

func (l *failureLog) add(line func()) {
	select {
	case l.lines <- line:
	default:
		l.dropped.Add(1)
	}
}

// report logs the end of an attempt that is on disk. fault is the worker's; nil for a finish
// without one. A sweep logs the attempts that it ends itself.
func (l *failureLog) report(op *store.Finish, j *job.Job, fault *job.Fault) {
	f := op.Failure
	if f == nil || op.State == job.Cancelled {
		return
	}
	id, queue := j.ID, j.Queue
	// A wait that the upstream asked for is no failure. What asked, such as an open circuit,
	// has a line of its own.
	asked := fault != nil && fault.Class == job.Wait && fault.RetryAfter > 0
	if fault != nil && f.Retryable && !asked {
		next := op.Delay.Round(time.Millisecond).String()
		if op.State == job.Failed {
			next = "none"
		}
		l.add(func() {
			l.log.Warn("an attempt failed", "job", id, "queue", queue, "attempt", f.Attempt, "code", f.Code, "error", shorten(fault.Error()), "next_try_in", next)
		})
	}
	if op.State == job.Failed {
		l.add(func() {
			l.log.Warn("a job failed", "job", id, "queue", queue, "attempt", f.Attempt, "code", f.Code, "error", shorten(f.Message))
		})
	}
}

// shorten bounds a text that may come from an upstream or a command.
func shorten(text string) string {
	if len(text) > maxFailureText {
		text = text[:maxFailureText] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
