package job

// Counts are what is kept of one queue: how many wait and run now, how many ever
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
