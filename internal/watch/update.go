package watch

import "github.com/meanwhile-run/meanwhile/internal/job"

// Update is what a watcher is told next: the job as it is now and the entries
// since the last update. The last update of an ended job has Job.State.Ended().
// The job is not to be changed, and stays as it is until the next update is asked
// for: it is not copied, because thousands of watchers wait with one.
type Update struct {
	Job     *job.Job
	Entries []job.Entry
}
