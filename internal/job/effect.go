package job

import "time"

// This file computes, once for all stores, how each op changes a job. A store checks whether
// the op may apply, calls the method of the op, and writes the changed job. The methods need
// nothing but the job. Their argument now is the store's clock, in whole microseconds. Each
// method raises the revision by one.

// Create sets the first state and the times of a submitted job.
func (j *Job) Create(to State, delay time.Duration, now time.Time) {
	j.State, j.Revision = to, 1
	j.Policy = j.Policy.RoundUp() // as a store keeps it, so that a leased job equals the one read later
	j.CreatedAt, j.RunAt = now, now
	j.Attempt, j.StartedAt = 0, time.Time{}
	switch to {
	case Scheduled:
		j.RunAt = addMicros(now, delay)
	case Running:
		j.Attempt, j.StartedAt = 1, now
	}
}

// Claim starts an attempt.
func (j *Job) Claim(now time.Time) {
	j.move(Running)
	j.Attempt++
	j.Progress = Progress{}
	if j.StartedAt.IsZero() {
		j.StartedAt = now
	}
}

// MoveWaiting moves a waiting job to another waiting state, when its time has come, when it is
// parked, or when its key has a free place.
func (j *Job) MoveWaiting(to State) { j.move(to) }

// RequestCancel records that a running job must be cancelled. A second request changes
// nothing.
func (j *Job) RequestCancel(now time.Time) {
	if j.CancelRequestedAt.IsZero() {
		j.CancelRequestedAt = now
		j.Revision++
	}
}

// Finish is the outcome of an attempt, as a worker or a sweep reports it.
type Finish struct {
	To      State // the end, or Scheduled after Delay, or Queued at once
	Failure *Failure
	Usage   []byte // nil keeps the earlier usage
	Delay   time.Duration
	Refund  bool // the attempt is not counted when the job waits again
	Unused  bool // the lease was never used: the attempt is not counted and clears no losses
	Lost    bool // the worker was lost; false clears the job's earlier losses
}

// Finish ends an attempt. A job with a requested cancel ends as Cancelled, whatever f.To is.
func (j *Job) Finish(f *Finish, now time.Time) {
	if f.Usage != nil {
		j.Usage = f.Usage
	}
	if !f.Unused {
		j.countEnd(f.Lost)
	}
	to := f.To
	if !j.CancelRequestedAt.IsZero() {
		to = Cancelled
	}
	switch to {
	case Succeeded:
		j.Failure = nil
	case Failed:
		j.Failure = f.Failure
	case Scheduled, Queued:
		j.waitAgain(to, f, now)
		return
	}
	j.End(to, now)
}

// waitAgain puts the job back to Scheduled or Queued after an attempt.
func (j *Job) waitAgain(to State, f *Finish, now time.Time) {
	j.move(to)
	if f.Refund || f.Unused {
		j.Attempt--
	}
	if f.Failure != nil {
		j.Failure = f.Failure
	}
	if j.Attempt == 0 && j.Failure == nil {
		j.StartedAt = time.Time{} // the job has no started attempt any more
	}
	j.RunAt = now
	if to == Scheduled {
		j.RunAt = addMicros(now, f.Delay)
	}
}

// End ends a job. Its policy says how long it is kept.
func (j *Job) End(to State, now time.Time) {
	j.move(to)
	j.FinishedAt, j.ExpiresAt = now, addMicros(now, j.Policy.Keep.forState(to))
}

// Expire ends a job that waited too long. A nil failure keeps the earlier one.
func (j *Job) Expire(failure *Failure, now time.Time) {
	if failure != nil {
		j.Failure = failure
	}
	j.End(Expired, now)
}

// Retry makes an ended job wait again as if it had never run. It keeps the output.
func (j *Job) Retry(to State, now time.Time) {
	j.move(to)
	j.Attempt, j.Losses, j.Cleared, j.RunAt = 0, 0, 0, now
	j.StartedAt, j.FinishedAt, j.ExpiresAt, j.CancelRequestedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	j.Failure, j.Usage, j.Progress = nil, nil, Progress{}
}

// QueueDeadline is when a job expires that has not been claimed since its submit or last
// retry; zero for never.
func (j *Job) QueueDeadline() time.Time {
	if d := j.Policy.Timeouts.Queue; d > 0 {
		return addMicros(j.RunAt, d)
	}
	return time.Time{}
}

func (j *Job) move(to State) {
	j.State = to
	j.Revision++
}

// addMicros adds d in whole microseconds, the resolution of a store.
func addMicros(t time.Time, d time.Duration) time.Time { return t.Add(d.Truncate(time.Microsecond)) }
