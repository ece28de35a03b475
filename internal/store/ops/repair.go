package ops

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// KeepDamaged is how long a job that failed because of its damaged record is kept.
const KeepDamaged = 7 * 24 * time.Hour

// repair rewrites a damaged record with its readable fields only. An unfinished job fails.
func (a *applier) repair(j *Job) error {
	a.b.Damaged = append(a.b.Damaged, j.ID)
	j.Damaged = false
	from := j.State
	if from == job.Running {
		// What a Tx has not written to the output yet would be lost with the lease.
		if err := a.tx.AppendLast(j, nil); err != nil {
			return err
		}
	}
	if !from.Ended() {
		suspect := j.Suspect()
		j.Policy.Keep.Failed = KeepDamaged // the policy may be the damaged part
		j.End(job.Failed, a.now)
		a.moveUnchecked(&j.Job, from, suspect)
		j.Failure = &job.Failure{
			Code: store.DamagedJob, Attempt: j.Attempt,
			Message: "the job's record was damaged on the server's disk: submit it anew",
		}
		if err := a.applyAtEnd(j, nil); err != nil {
			return err
		}
	}
	if err := a.tx.Repair(j, from); err != nil {
		return err
	}
	if from == job.Running && j.Deleted {
		return a.remove(j)
	}
	return nil
}

// endDamaged ends the running jobs that the store knows to be damaged.
func (a *applier) endDamaged() error {
	jobs, err := a.tx.Damaged()
	for _, j := range jobs {
		if err == nil {
			err = a.repair(j)
		}
	}
	if err == nil {
		_, err = a.unparkFreedKeys()
	}
	return err
}
