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
	Action Action // what a batch is to do with it; not stored
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
