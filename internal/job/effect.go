package job

import "time"

// What each op makes of a job is written in this file, once for all stores. A store
// finds out whether the op may apply, calls the method that is for it, and persists
// the job as that left it. The methods decide nothing that needs more than the job;
// now is the store's clock, in whole microseconds. Each raises the revision by one.

// Create makes a new job of what a submit asks for, in its first state.
func (j *Job) Create(to State, delay time.Duration, now time.Time) {
	j.State, j.Revision = to, 1
	j.Policy = j.Policy.Whole() // the same for a job that is leased at once and for one that is read again
	j.CreatedAt, j.RunAt = now, now
	j.Attempt, j.StartedAt = 0, time.Time{}
	switch to {
	case Scheduled:
		j.RunAt = after(now, delay)
	case Running:
		j.Attempt, j.StartedAt = 1, now
	}
}

// Claim begins an attempt.
func (j *Job) Claim(now time.Time) {
	j.move(Running)
	j.Attempt++
	j.Progress = Progress{}
	if j.StartedAt.IsZero() {
		j.StartedAt = now
	}
}

// MoveWaiting brings a job that waits to where it waits from now on: its time has come, it
// is parked, or its key has room for it.
func (j *Job) MoveWaiting(to State) { j.move(to) }

// RequestCancel remembers that a running job is to be cancelled. A second request
// changes nothing.
func (j *Job) RequestCancel(now time.Time) {
	if j.CancelRequestedAt.IsZero() {
		j.CancelRequestedAt = now
		j.Revision++
	}
}

// Finish is what a worker, or a sweep, says of the attempt that it ends.
type Finish struct {
	To      State // an end; Scheduled after Delay, or Queued at once
	Failure *Failure
	Usage   []byte // nil leaves it as it is
	Delay   time.Duration
	Refund  bool // the attempt is not counted, when the job goes back
	Unused  bool // the lease was never used: the attempt is not counted, and clears nothing
	Lost    bool // the worker was lost; an end without it clears the job of earlier losses
}

// Finish ends an attempt. A job whose cancel was requested ends as Cancelled,
// whatever the finish says.
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
		j.goBack(to, f, now)
		return
	}
	j.End(to, now)
}

// goBack makes a job wait again whose attempt is over.
func (j *Job) goBack(to State, f *Finish, now time.Time) {
	j.move(to)
	if f.Refund || f.Unused {
		j.Attempt--
	}
	if f.Failure != nil {
		j.Failure = f.Failure
	}
	if j.Attempt == 0 && j.Failure == nil {
		j.StartedAt = time.Time{} // it has not begun yet
	}
	j.RunAt = now
	if to == Scheduled {
		j.RunAt = after(now, f.Delay)
	}
}

// End ends a job, which is then kept for as long as its policy says.
func (j *Job) End(to State, now time.Time) {
	j.move(to)
	j.FinishedAt, j.ExpiresAt = now, after(now, j.Policy.Keep.after(to))
}

// Expire ends a job that waited too long; failure may be nil.
func (j *Job) Expire(failure *Failure, now time.Time) {
	if failure != nil {
		j.Failure = failure
	}
	j.End(Expired, now)
}

// Retry makes an ended job wait again, as if it had never run. Its output stays.
func (j *Job) Retry(to State, now time.Time) {
	j.move(to)
	j.Attempt, j.Losses, j.Cleared, j.RunAt = 0, 0, 0, now
	j.StartedAt, j.FinishedAt, j.ExpiresAt, j.CancelRequestedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	j.Failure, j.Usage, j.Progress = nil, nil, Progress{}
}

// QueueDeadline is when a job that was submitted or retried, and not claimed since,
// expires; zero for never.
func (j *Job) QueueDeadline() time.Time {
	if d := j.Policy.Timeouts.Queue; d > 0 {
		return after(j.RunAt, d)
	}
	return time.Time{}
}

func (j *Job) move(to State) {
	j.State = to
	j.Revision++
}

// after is a later time, in whole microseconds: no store keeps more.
func after(t time.Time, d time.Duration) time.Time { return t.Add(d.Truncate(time.Microsecond)) }
