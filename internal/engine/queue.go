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
	MaxRunning  int    // jobs running at once over all processes; 0 for no limit
	MaxDepth    int    // waiting jobs (see [fairqueue.Load]); one more is refused with [job.QueueFull]; 0 for no limit
	MaxBytes    int64  // of the waiting jobs' input and files; 0 for no limit
	KeyRunning  int    // jobs of one key running at once, the others are parked; 0 for no limit
	KeyWaiting  int    // waiting jobs of one key; one more is refused with [job.KeyFull]; 0 for no limit
	MaxAttempts int
	Policy      job.Policy
	Keep        time.Duration // ended jobs are kept this long
	KeepFailed  time.Duration // failed ones this long
	Files       bool          // jobs may come with files: its executor knows what to do with them
	// Check refuses inputs that no attempt could work on. Nil takes everything.
	Check func(input []byte) error
}
