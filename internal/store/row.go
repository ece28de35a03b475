package store

import "github.com/meanwhile-run/meanwhile/internal/job"

// Row is a side row: data that an API keeps beside jobs, written in the same transaction.
// A store sees an owner, a kind, a parent, an id that orders the row among its siblings,
// and bytes. Conversations and their messages are rows, for example. A row never shares an
// identity with a row of another owner, kind or parent.
type Row struct {
	Owner  job.Owner
	Kind   string
	Parent string
	ID     string
	Body   []byte
	Action Action // what a batch does with the row; not stored
	To     string // of a Move: the new id; not stored
}

// ServerOwner owns the rows that a server keeps for itself. No tenant can have this name. Its rows
// have no payloads of jobs, and are never encrypted.
var ServerOwner = job.Owner{Tenant: "~"}

// RowSet is the set of rows of one owner and kind under one parent.
type RowSet struct {
	Owner        job.Owner
	Kind, Parent string
}

// Set is the set that the row belongs to.
func (r *Row) Set() RowSet { return RowSet{r.Owner, r.Kind, r.Parent} }

// AddedBytes is how many bytes of bodies the rows add, if none of them replaces another.
func AddedBytes(rows []Row) (bytes int64) {
	for i := range rows {
		if a := rows[i].Action; a == Put || a == Insert {
			bytes += int64(len(rows[i].Body))
		}
	}
	return bytes
}

// Action is what an op does with a row.
type Action uint8

// The actions. A store checks the conditions of all rows of an op before it writes any of
// them: an op applies with all its rows or not at all.
const (
	Put         Action = iota // write it, whether or not it exists
	Insert                    // write it; job.Conflict if it exists, with its body
	Update                    // write it if it exists; otherwise do nothing
	Require                   // write nothing; job.NotFound if it does not exist
	Move                      // give it the id To if it exists, and keep its body; otherwise do nothing
	Remove                    // delete it if it exists
	RemoveAll                 // delete every row of the kind under the parent; ID is ignored
	RequireNone               // no write; job.Conflict if the parent has rows of the kind, with the first body
)
