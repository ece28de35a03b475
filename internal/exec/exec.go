// Package exec is what does the work: an [Executor] takes one attempt of a job and
// speaks through a [Sink]. Each kind has a folder of its own, and package exectest
// holds what every kind promises, as tests.
package exec

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Executor does the jobs of a queue. Its methods are called by many goroutines at
// once.
type Executor interface {
	// Kind is the executor's name in a configuration: "sim", "llm", "process".
	Kind() string

	// Check says whether an input could be worked on at all, before the job is
	// stored: a *[job.Error] with the code [job.Invalid], or nil; its Field is a pointer
	// into the input. It is quick and has no effect.
	Check(input []byte) error

	// Execute does one attempt and returns when it is over and nothing that it
	// started is left. The result goes to the sink; the error is why there is none,
	// a *[job.Fault] where the executor knows what should follow.
	//
	// When ctx ends the work is to stop at once and Execute to return soon;
	// [context.Cause] says why: [ErrCancelled], [ErrTimeout], [ErrStopping] or
	// [ErrLost]. Work that is stopped returns an error; nil says that it was done all the
	// same, and a job that was not cancelled then succeeds. After Execute returned, the
	// sink is not touched again.
	Execute(ctx context.Context, t Task, out Sink) error
}

// Task is one attempt of one job.
type Task struct {
	Job   job.Job // as it was claimed: Attempt counts this attempt
	Input []byte  // not to be changed
	// Files came with the job: read-only, at these paths for as long as the attempt
	// lasts.
	Files []File
}

// File is a file of a task.
type File struct {
	job.File
	Path string // absolute
}

// Sink takes what an attempt says. One goroutine calls it at a time. It packs
// small pieces together, so that an executor need not; a call may block while the
// disk is behind. An error from a call means that the attempt is over: the
// executor returns it.
type Sink interface {
	// ResetTimeouts says that the work begins only now, after a wait for something scarce
	// inside the executor: the attempt's clocks start again. It may be called again
	// and again while the wait goes on. Most never call it.
	ResetTimeouts()
	// Text says a piece of the answer, UTF-8. Pieces may end inside a character.
	Text(piece string) error
	// Event says one JSON value, kept verbatim.
	Event(value []byte) error
	// Log says a line for whoever operates the job.
	Log(line string) error
	// Progress reports how far the attempt is. Percent below what was reported before
	// is raised to it.
	Progress(p job.Progress) error
	// Result sets what the job comes to if Execute returns nil; the last call counts.
	Result(r job.Result)
	// Usage sets what the work cost, as JSON; kept however the attempt ends.
	Usage(u []byte)
}

// Why an attempt's context ended.
var (
	ErrCancelled = errors.New("exec: the job was cancelled")
	ErrTimeout   = errors.New("exec: the attempt reached its time")
	ErrStopping  = errors.New("exec: the worker is stopping")
	ErrLost      = errors.New("exec: the lease was lost")
)
