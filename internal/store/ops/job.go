package ops

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Job is a job as a store keeps it.
//
// An op changes the job that a Tx returned. Until the end of its batch a Tx must therefore return
// the same pointer for the same running job, and the changed job for any other.
type Job struct {
	job.Job
	// N is the store's number of the job. It grows with each new job and is never used again.
	// Among equal turns, the job with the lower number is first.
	N int64
	// FileCount is the number of files. It is known even if their names are damaged.
	FileCount      int
	Turn           int64  // of a queued or parked job; see package fairqueue
	IdempotencyKey string // the key that created the job; "" for none
	HasRefs        bool   // set by [RetentionTx.Prunable]: the job may have references
	Deleted        bool   // a running job that was deleted: it is removed when its attempt ends
	// Damaged means that the record cannot be read completely: the job has the fields that can be
	// read. Resource is then that of the lane in which a queued job waits. The first op that meets
	// the job ends it.
	Damaged bool
	Lease   Lease // of a running job
}

// Lease is the lease of a running job, and what is known of its attempt; see [store.Running].
type Lease struct {
	Token   job.Token
	Worker  string
	Process job.Process
	For     time.Duration // as claimed
	Until   time.Time
	Used    bool
	// AttemptStartedAt and LastOutputAt may be later than the true times after an opening.
	AttemptStartedAt, LastOutputAt time.Time
	StartCursor                    int64 // the last entry before this attempt
	EarlierOutputBytes             int64
	HasOutput                      bool
}

// AddOutput counts entries that a Tx has stored.
func (j *Job) AddOutput(entries []job.Entry, now time.Time) {
	for i := range entries {
		kind := entries[i].Kind
		j.Cursor = entries[i].Seq
		j.OutputBytes += int64(len(entries[i].Data))
		j.Lease.HasOutput = j.Lease.HasOutput || kind.IsOutput()
		if kind.ResetsIdleClock() {
			j.Lease.LastOutputAt = now
		}
	}
}

// Matches reports whether a running job passes a filter.
func (j *Job) Matches(filter store.RunningFilter, now time.Time) bool {
	switch filter {
	case store.LapsedOnly:
		return !j.Lease.Until.After(now)
	case store.CancelOnly:
		return j.CancelOverdue(now)
	case store.OverrunOnly:
		return j.Policy.Timeouts.Overrun(j.Lease.AttemptStartedAt, now)
	case store.SilentOnly:
		t := j.AttemptTimeouts()
		return t.Silent(j.Lease.AttemptStartedAt, j.Lease.LastOutputAt, now)
	default:
		return true
	}
}

// View returns a running job for a reader.
func (j *Job) View() store.Running {
	l := &j.Lease
	return store.Running{
		Job: j.Job, Token: l.Token, Worker: l.Worker, Process: l.Process, LeaseFor: l.For,
		AttemptStartedAt: l.AttemptStartedAt, LastOutputAt: l.LastOutputAt, LeaseUsed: l.Used,
		EarlierOutputBytes: l.EarlierOutputBytes, HasOutput: l.HasOutput,
	}
}
