package job

import "time"

// Filter selects jobs of one owner.
type Filter struct {
	Owner  Owner
	Queue  string // "" for all
	Key    *string
	Status State // 0 for all
	// ErrorCode is that of the last failure; "" for all, failed or not.
	ErrorCode string
	// CreatedAfter and CreatedBefore bound [Job.CreatedAt], themselves excluded; zero for
	// no bound. See [Filter.MatchCreatedAt].
	CreatedAfter, CreatedBefore time.Time
	Metadata                    map[string]string // pairs that the job must have, all of them
	After                       ID                // jobs older than this one; zero begins with the newest
	Limit                       int               // 1 to MaxListPage
}

// MatchCreatedAt says whether the bounds select a job that was created then. A job's time
// counts by the millisecond, as it is shown: whoever asks for jobs after the time of
// one does not get that one again.
func (f *Filter) MatchCreatedAt(at time.Time) bool {
	at = time.UnixMilli(at.UnixMilli())
	return (f.CreatedAfter.IsZero() || at.After(f.CreatedAfter)) && (f.CreatedBefore.IsZero() || at.Before(f.CreatedBefore))
}
