package ops

import "github.com/meanwhile-run/meanwhile/internal/store"

// The bytes that count for an owner besides the bodies of its side rows. Changing them needs a
// migration of every store, because the sums are stored.
const (
	RowBytes      = 100 // of a side row
	DeleteBytes   = 100 // of the record of a delete
	LeftoverBytes = 300 // of an idempotency key whose job was deleted
)

// keptBytes is how much a submit's owner keeps more with it: its rows, and its idempotency key,
// which may outlive its job.
func keptBytes(op *store.Submit) int64 {
	bytes := store.AddedBytes(op.Rows)
	if op.Idempotency != nil {
		bytes += LeftoverBytes
	}
	return bytes
}
