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
	// CreatedAfter and CreatedBefore bound when the job was submitted, themselves
	// excluded; zero for no bound.
	CreatedAfter, CreatedBefore time.Time
	Metadata                    map[string]string // pairs that the job must have, all of them
	After                       ID                // jobs older than this one; zero begins with the newest
	Limit                       int               // 1 to MaxListPage
}
