package job

import "time"

// Filter selects jobs of one owner, or of a [WholeTenant].
type Filter struct {
	Owner  Owner
	Queue  string // "" for all
	Key    *string
	Status State // 0 for all
	// ErrorCode is the code of the last failure; "" for all jobs, failed or not.
	ErrorCode string
	// CreatedAfter and CreatedBefore are exclusive bounds of [Job.CreatedAt]; zero for no
	// bound. See [Filter.MatchCreatedAt].
	CreatedAfter, CreatedBefore time.Time
	Metadata                    map[string]string // the job must have all of these pairs
	After                       ID                // only jobs older than this one; zero for all
	Limit                       int               // 1 to MaxListPage
}

// MatchCreatedAt reports whether the bounds select a job that was created at that time. They
// compare whole milliseconds, as a job's time is shown: a list of the jobs after the shown
// time of one job does not contain that job.
func (f *Filter) MatchCreatedAt(at time.Time) bool {
	at = time.UnixMilli(at.UnixMilli())
	return (f.CreatedAfter.IsZero() || at.After(f.CreatedAfter)) && (f.CreatedBefore.IsZero() || at.Before(f.CreatedBefore))
}
