package store

import "github.com/meanwhile-run/meanwhile/internal/job"

// Row is a side row: what an API keeps beside jobs, in the same transaction. To a
// store it is an owner, a kind, a parent, an id that orders it among its siblings, and
// bytes. A conversation and its messages are rows. Rows of different owners, kinds or
// parents never meet.
type Row struct {
	Owner  job.Owner
	Kind   string
	Parent string
	ID     string
	Body   []byte
	Do     Action // what a batch is to do with it; not stored
}

// RowSet is the rows of one owner and kind under one parent.
type RowSet struct {
	Owner        job.Owner
	Kind, Parent string
}

// Set is the set that the row belongs to.
func (r *Row) Set() RowSet { return RowSet{r.Owner, r.Kind, r.Parent} }

// Action is what an op does with a row.
type Action uint8

// The actions. The conditions of all of an op's rows are checked before any of
// them is written: an op applies with all its rows or not at all.
const (
	Put         Action = iota // write it, whether or not it was there
	Insert                    // write it; if it is there already: job.Conflict, with its body
	Update                    // write it only if it is there; otherwise do nothing
	Require                   // write nothing; if it is not there: job.NotFound
	Remove                    // delete it, if it is there
	RemoveAll                 // delete every row of the kind under the parent; ID is not looked at
	RequireNone               // write nothing; if a row of the kind is under the parent: job.Conflict, with the first one's body
)

// End is a job at the moment it ends, or at which a retry takes its end back, as
// the function that makes its side rows sees it.
type End struct {
	Job    job.Job     // as it ended; after a retry as it waits, so State.Ended() tells which
	Result *job.Result // when it succeeded
	// Text reads what the last attempt has said: its text entries, joined, up to
	// limit bytes.
	Text func(limit int) string
}

// RowsAtEnd makes the side rows of an ending job. A store calls it inside the
// transaction for every job with a Ref that ends, whoever ends it, and for every one
// that a [Retry] queues again: what its end left is then out of date. It is a pure
// function of what it is given: a transaction that is tried again calls it again.
// Rows whose conditions do not hold are left out: neither an end nor a retry is refused for them.
type RowsAtEnd func(End) []Row
