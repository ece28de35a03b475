package job

// Counts are what is kept of one queue, over all tenants: how many wait and run now, how many ever
// ended in each way or were tried again, the bytes of what waits, and whether it
// is paused.
type Counts struct {
	Scheduled, Queued, Parked, Running             int64
	Succeeded, Failed, Cancelled, Expired, Retried int64
	WaitingBytes                                   int64 // [Job.InputBytes] of the waiting jobs
	Paused                                         bool
}

// Waiting is how many jobs have yet to be given to a worker.
func (c Counts) Waiting() int64 { return c.Scheduled + c.Queued + c.Parked }

// Unfinished is how many jobs have not ended.
func (c Counts) Unfinished() int64 { return c.Waiting() + c.Running }

// Move counts a job that goes from one state to another and weighs so much while it
// waits. The zero state is no job. A job that ended stays counted where it ended,
// also when it is queued again.
func (c *Counts) Move(from, to State, bytes int64) {
	if !from.Ended() {
		c.add(from, -1)
	}
	c.add(to, 1)
	if from.Waiting() {
		c.WaitingBytes -= bytes
	}
	if to.Waiting() {
		c.WaitingBytes += bytes
	}
}

func (c *Counts) add(s State, n int64) {
	switch s {
	case Scheduled:
		c.Scheduled += n
	case Queued:
		c.Queued += n
	case Parked:
		c.Parked += n
	case Running:
		c.Running += n
	case Succeeded:
		c.Succeeded += n
	case Failed:
		c.Failed += n
	case Cancelled:
		c.Cancelled += n
	case Expired:
		c.Expired += n
	}
}
