package job

// HeldBackBy is a stable code that says what holds back a waiting job, or the jobs of a queue;
// "" for nothing.
type HeldBackBy string

// The holds.
const (
	HeldBackByDelay      HeldBackBy = "delay"        // its time, which its submitter chose
	HeldBackByBackoff    HeldBackBy = "backoff"      // its time, after a failure or after being told to wait
	HeldBackByLoss       HeldBackBy = "loss_backoff" // its time, after its worker was lost
	HeldBackByKey        HeldBackBy = "key_limit"    // its key has as many running as it may
	HeldBackBySuspect    HeldBackBy = "suspect"      // its workers were lost, and such jobs run one at a time
	HeldBackByPause      HeldBackBy = "paused"       // its queue is paused
	HeldBackByMaxRunning HeldBackBy = "max_running"  // its queue has as many running as it may
	HeldBackByNoWorker   HeldBackBy = "no_worker"    // nobody works for its queue
	HeldBackByTurn       HeldBackBy = "turn"         // every slot is taken, or promised to a job before it
)

// WorkerLost is the failure's code of an attempt whose worker was lost.
const WorkerLost = "worker_lost"

// HeldBackReason says what holds the job back by itself; "" also for a queued one, which may be
// held back by its queue.
func (j *Job) HeldBackReason() HeldBackBy {
	switch {
	case j.State == Parked && j.Suspect():
		return HeldBackBySuspect
	case j.State == Parked:
		return HeldBackByKey
	case j.State != Scheduled:
		return ""
	case j.Failure == nil:
		return HeldBackByDelay
	case j.Failure.Code == WorkerLost:
		return HeldBackByLoss
	}
	return HeldBackByBackoff
}
