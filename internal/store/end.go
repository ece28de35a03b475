package store

import "github.com/meanwhile-run/meanwhile/internal/job"

// End is a job at the moment when it ends, or when a retry undoes its end. It is the
// argument of [AtEnd].
type End struct {
	Job    job.Job     // as the op left it: State.Ended() is true at an end, false at a retry
	Result *job.Result // set when the job succeeded
	// Text reads the text of the last attempt: its text entries, joined, up to limit bytes.
	Text func(limit int) string
	// Entries reads the job's log from its beginning, in order, up to about limit bytes of
	// data.
	Entries func(limit int) []job.Entry
	// Tally has the counts of the job's tally, with this end included; nil for a job without
	// a tally. The end that leaves no unfinished job in the tally sees Unfinished() == 0.
	Tally *job.Counts
}

// AtEnd computes the rows and jobs that follow from the end of a job.
//
// A store calls it inside the transaction, for every job with Refs or a Tally that ends,
// whichever op ends it, and for every such job that a [Retry] queues again: the rows that
// its end left are then out of date. The only exceptions are a [Finish] and a [Due] with
// SkipAtEnd.
//
// AtEnd is a pure function of its argument, because a store calls it again when it repeats
// a transaction. The ids of the jobs that it makes must then be the same, and no other job
// of any owner may have such an id: derive them from the id and the revision of the ended
// job. The ids depend neither on Result nor on Text and Entries: a [Prune] calls AtEnd without
// them, and keeps an ended job while a job that its end made has not ended. An id begins with a time. Take the time of the end, because lists by time read more
// rows otherwise.
//
// When the job's log is damaged, Text and Entries return the part before the damage.
type AtEnd func(End) FollowUp

// FollowUp is what [AtEnd] adds to the transaction that ends the job.
type FollowUp struct {
	// Rows are applied all together or, when a condition of one does not hold, not at all.
	// Neither an end nor a retry is ever refused because of them.
	Rows []Row
	// Jobs are new jobs; the caller sets Job, Input and Delay of each. No limit on waiting
	// jobs applies to them. A job whose id exists already is left out.
	Jobs []*Submit
}

// JoinAtEnd makes one function of several that each handle their own references.
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
