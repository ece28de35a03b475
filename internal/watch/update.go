package watch

import "github.com/meanwhile-run/meanwhile/internal/job"

// Update is a change of a watched job: the current job, and the entries since the last update.
// In the last update of a job, Job.State.Ended() is true.
//
// The receiver must not change the job, and may use it until it requests the next update. The
// job is not a copy, because thousands of watchers may wait at once, each with a job.
type Update struct {
	Job     *job.Job
	Entries []job.Entry
}
