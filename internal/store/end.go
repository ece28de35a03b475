package store

import "github.com/meanwhile-run/meanwhile/internal/job"

// End is a job at the moment it ends, or at which a retry takes its end back, as
// [AtEnd] sees it.
type End struct {
	Job    job.Job     // as it ended; after a retry as it waits, so State.Ended() tells which
	Result *job.Result // when it succeeded
	// Text reads what the last attempt has said: its text entries, joined, up to
	// limit bytes.
	Text func(limit int) string
	// Entries reads the job's log from its beginning, in order, up to about limit bytes
	// of data.
	Entries func(limit int) []job.Entry
	// Tally counts the jobs of the job's tally, this end included; nil for a job without
	// one. The end that leaves none of them unfinished sees so.
	Tally *job.Counts
}

// AtEnd says what follows from an end. A store calls it inside the transaction for every
// job with Refs or a Tally that ends, whoever ends it, and for every such job that a
// [Retry] queues again: what its end left is then out of date. Only a [Finish] or
// [Due] that is Bare ends a job without it. It is a pure function of
// what it is given: a transaction that is tried again calls it again, so that the ids of
// the jobs that it makes must be the same then. No other job of any owner has such an id:
// derive it from the id and the revision of the job that ended. An id begins with a time:
// take that of the end, or lists by time have to read more rows. Of a damaged log Text and
// Entries read what comes before the damage.
type AtEnd func(End) FollowUp

// FollowUp is what an end leaves, stored by the transaction that ends the job.
type FollowUp struct {
	// Rows whose conditions do not hold are left out, all of them: neither an end nor a
	// retry is refused for them.
	Rows []Row
	// Jobs are new jobs, of which Job, Input and Delay are set. They pass no limit of
	// what may wait. One whose id is taken is left out.
	Jobs []*Submit
}

// JoinAtEnd joins functions that each look for their own references.
func JoinAtEnd(all ...AtEnd) AtEnd {
	return func(end End) (f FollowUp) {
		for _, one := range all {
			next := one(end)
			f.Rows = append(f.Rows, next.Rows...)
			f.Jobs = append(f.Jobs, next.Jobs...)
		}
		return f
	}
}
