package job

// HeldBackBy is a stable code for the reason why a waiting job, or every job of a queue, does
// not run yet; "" for none.
type HeldBackBy string

// The reasons.
const (
	HeldBackByDelay      HeldBackBy = "delay"        // its time has not come; the submitter chose the delay
	HeldBackByBackoff    HeldBackBy = "backoff"      // its backoff, or a wait that the upstream asked for
	HeldBackByLoss       HeldBackBy = "loss_backoff" // its backoff after its worker was lost
	HeldBackByKey        HeldBackBy = "key_limit"    // its key has reached its limit of running jobs
	HeldBackBySuspect    HeldBackBy = "suspect"      // it lost its workers; such jobs run one at a time
	HeldBackByPause      HeldBackBy = "paused"       // its queue is paused
	HeldBackByMaxRunning HeldBackBy = "max_running"  // its queue has reached its limit of running jobs
	HeldBackByNoWorker   HeldBackBy = "no_worker"    // its queue has no worker
	HeldBackByResource   HeldBackBy = "resource"     // what it needs besides a slot, such as its model, has no room
	HeldBackByTurn       HeldBackBy = "turn"         // every slot is busy, or free for a job before it
)

// WorkerLost is the failure code of an attempt whose worker was lost.
const WorkerLost = "worker_lost"

// HeldBackReason returns the reason that follows from the job alone. It is "" for a queued job,
// which its queue may hold back, and for a job that does not wait.
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
