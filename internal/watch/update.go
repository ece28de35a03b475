package watch

import "github.com/meanwhile-run/meanwhile/internal/job"

// Update is the next news of a watched job: the job as it is now, and the entries since the
// last update. In the last update of a job, Job.State.Ended() is true.
//
// The receiver must not change the job, and may use it until it asks for the next update. It
// is not a copy, because thousands of watchers may each wait with one.
type Update struct {
	Job     *job.Job
	Entries []job.Entry
}
