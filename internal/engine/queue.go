package engine

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Queue is where jobs of one kind wait, and how they are done. It is set once, at
// boot.
type Queue struct {
	Name        string
	Executor    string // the kind, for people
	Concurrency int    // jobs running at once in this process
	MaxDepth    int    // waiting jobs; one more is refused with [job.QueueFull]
	MaxAttempts int
	Policy      job.Policy
	Keep        time.Duration // ended jobs are kept this long
	KeepFailed  time.Duration // failed ones this long
	// Check refuses inputs that no attempt could work on. Nil takes everything.
	Check func(input []byte) error
}
