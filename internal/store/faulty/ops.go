package faulty

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// anyOp says whether is returns true for an op of the batch.
func anyOp(b *store.Batch, is func(op any) bool) bool {
	return has(b.Pauses, is) || has(b.Renews, is) || has(b.Presences, is) || has(b.Appends, is) || has(b.Finishes, is) || has(b.Cancels, is) || has(b.Deletes, is) ||
		has(b.Retries, is) || has(b.Writes, is) || has(b.Submits, is) || has(b.Dues, is) || has(b.Prunes, is) || has(b.Claims, is)
}

func has[Op any](ops []*Op, is func(op any) bool) bool {
	return slices.ContainsFunc(ops, func(op *Op) bool { return is(op) })
}
