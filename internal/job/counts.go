package job

// Counts are the counts of one queue, over all tenants: the jobs that wait and run now, the
// jobs that ever ended in each state or were retried, the bytes of the waiting jobs, and
// whether the queue is paused.
type Counts struct {
	Scheduled, Queued, Parked, Running             int64
	Succeeded, Failed, Cancelled, Expired, Retried int64
	WaitingBytes                                   int64 // [Job.InputBytes] of the waiting jobs
	Paused                                         bool
}

// Waiting is the number of jobs that no worker has yet.
func (c Counts) Waiting() int64 { return c.Scheduled + c.Queued + c.Parked }

// Unfinished is the number of jobs that have not ended.
func (c Counts) Unfinished() int64 { return c.Waiting() + c.Running }

// Move counts a job that moves from one state to another; bytes is its [Job.InputBytes]. The
// zero state stands for a job that does not exist. A job stays counted in the state in
// which it ended, also when a retry queues it again.
func (c *Counts) Move(from, to State, bytes int64) {
	if !from.Ended() { // the counts of ends are totals: they never fall
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
