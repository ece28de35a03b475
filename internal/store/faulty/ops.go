package faulty

import (
	"slices"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// anyOp reports whether match returns true for an op of the batch.
func anyOp(b *store.Batch, match func(op any) bool) bool {
	return has(b.Pauses, match) || has(b.Renews, match) || has(b.Presences, match) || has(b.Appends, match) || has(b.Finishes, match) || has(b.Cancels, match) || has(b.Deletes, match) ||
		has(b.Retries, match) || has(b.Writes, match) || has(b.Submits, match) || has(b.Dues, match) || has(b.Prunes, match) || has(b.Claims, match)
}

func has[Op any](ops []*Op, match func(op any) bool) bool {
	return slices.ContainsFunc(ops, func(op *Op) bool { return match(op) })
}
