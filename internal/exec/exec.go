// Package exec defines what runs a job: an [Executor] makes one attempt and writes its output
// to a [Sink]. Each kind of executor has a package of its own. Package exectest tests what
// every kind must promise.
package exec

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Executor runs the jobs of a queue. Many goroutines call its methods at once.
type Executor interface {
	// Kind returns the executor's name in a configuration, such as "sim", "llm" or "process".
	Kind() string

	// TakesFiles reports whether jobs may come with files. A submit with files is refused where
	// the executor would ignore them.
	TakesFiles() bool

	// Check reports whether an attempt could work on an input. It is called before the job is
	// stored. It returns nil or a *[job.Error] with the code [job.Invalid], whose Field is a
	// JSON pointer into the input. It is quick and has no side effect.
	Check(input []byte) error

	// Execute makes one attempt. It returns when the attempt is over and everything it started
	// is gone. The result goes to the sink. The error says why there is no result; it is a
	// *[job.Fault] where the executor knows what should follow.
	//
	// When ctx ends, the work must stop at once and Execute must return soon. [context.Cause]
	// is one of [ErrCancelled], [ErrTimeout], [ErrStopping] and [ErrLost]. Work that was
	// stopped returns an error. If Execute returns nil although ctx has ended, the work is
	// done all the same, and the job succeeds unless it was cancelled. Execute does not use
	// the sink after it has returned.
	Execute(ctx context.Context, t Task, out Sink) error
}

// Task is what an executor is given for one attempt.
type Task struct {
	Job   job.Job // as it was claimed: Job.Attempt counts this attempt
	Input []byte  // must not be changed
	// Files came with the job. They are read-only and stay at their paths until the attempt is
	// over.
	Files []File
}

// File is a file that came with the job.
type File struct {
	job.File
	Path string // absolute
}

// Sink takes the output of an attempt. Only one goroutine may call it at a time. It packs
// small pieces together, so an executor need not. A call may block while the disk is slow. An
// error from a call means that the attempt is over: the executor must return it.
type Sink interface {
	// ResetTimeouts restarts the attempt's timeouts. An executor calls it while and after it
	// waits inside for something scarce, such as a free slot of a model, so that the wait
	// counts for no timeout. Most executors never call it.
	ResetTimeouts()
	// Text writes a piece of text in UTF-8. A piece may end inside a character.
	Text(piece string) error
	// Event writes one JSON value, which is stored verbatim.
	Event(value []byte) error
	// Log writes one line for the people who operate the job.
	Log(line string) error
	// Progress reports how far the attempt is. A percentage below an earlier one is raised to
	// it.
	Progress(p job.Progress) error
	// Result sets the job's result, in case Execute returns nil. The last call counts.
	Result(r job.Result)
	// Usage sets what the work cost, as JSON. It is stored however the attempt ends.
	Usage(u []byte)
}

// The causes with which an attempt's context ends.
var (
	ErrCancelled = errors.New("exec: the job was cancelled")
	ErrTimeout   = errors.New("exec: the attempt reached its time")
	ErrStopping  = errors.New("exec: the worker is stopping")
	ErrLost      = errors.New("exec: the lease was lost")
)
