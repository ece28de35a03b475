package postgres

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// recentInMemory is the number of batch ids in memory. It is more than a process may have
// unsynced, because tests let several engines share one store.
const recentInMemory = 8 * store.MaxUnsynced

// recentBatches are the ids of the last batches that this process has applied, the oldest first:
// also of those that changed nothing, whose ids the database does not have.
type recentBatches struct {
	ids    []store.BatchID
	stored []store.BatchID // ids in the table applied that this process may delete
}

func (r *recentBatches) has(id store.BatchID) bool { return slices.Contains(r.ids, id) }

// add adds a batch that was applied.
func (r *recentBatches) add(id store.BatchID) {
	if len(r.ids) == recentInMemory {
		r.ids = r.ids[:copy(r.ids, r.ids[1:])]
	}
	r.ids = append(r.ids, id)
}
