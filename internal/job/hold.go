package job

// Hold is a stable code that says what holds back a waiting job, or the jobs of a queue;
// "" for nothing.
type Hold string

// The holds.
const (
	HeldByDelay      Hold = "delay"        // its time, which its submitter chose
	HeldByBackoff    Hold = "backoff"      // its time, after a failure or after being told to wait
	HeldByLoss       Hold = "loss_backoff" // its time, after its worker was lost
	HeldByKey        Hold = "key_limit"    // its key has as many running as it may
	HeldBySuspect    Hold = "suspect"      // its workers were lost, and such jobs run one at a time
	HeldByPause      Hold = "paused"       // its queue is paused
	HeldByMaxRunning Hold = "max_running"  // its queue has as many running as it may
	HeldByNoWorker   Hold = "no_worker"    // nobody works for its queue
	HeldByTurn       Hold = "turn"         // every slot is taken, or promised to a job before it
)

// LostWorker is the failure's code of an attempt whose worker was lost.
const LostWorker = "worker_lost"

// Hold says what holds the job back by itself; "" also for a queued one, which may be
// held back by its queue.
func (j *Job) Hold() Hold {
	switch {
	case j.State == Parked && j.Suspect():
		return HeldBySuspect
	case j.State == Parked:
		return HeldByKey
	case j.State != Scheduled:
		return ""
	case j.Failure == nil:
		return HeldByDelay
	case j.Failure.Code == LostWorker:
		return HeldByLoss
	}
	return HeldByBackoff
}
