package engine

import "github.com/meanwhile-run/meanwhile/internal/store"

// halves splits a batch in two that are committed one after the other. The kinds
// keep their order: the first half has the earlier kinds.
func halves(b *store.Batch) (first, second *store.Batch) {
	first, second = store.NewBatch(), store.NewBatch()
	room := b.Len() / 2
	split(b.Renews, &first.Renews, &second.Renews, &room)
	split(b.Appends, &first.Appends, &second.Appends, &room)
	split(b.Finishes, &first.Finishes, &second.Finishes, &room)
	split(b.Cancels, &first.Cancels, &second.Cancels, &room)
	split(b.Deletes, &first.Deletes, &second.Deletes, &room)
	split(b.Retries, &first.Retries, &second.Retries, &room)
	split(b.Writes, &first.Writes, &second.Writes, &room)
	split(b.Submits, &first.Submits, &second.Submits, &room)
	split(b.Dues, &first.Dues, &second.Dues, &room)
	split(b.Prunes, &first.Prunes, &second.Prunes, &room)
	split(b.Claims, &first.Claims, &second.Claims, &room)
	return first, second
}

func split[Op any](ops []*Op, first, second *[]*Op, room *int) {
	n := min(*room, len(ops))
	*room -= n
	*first, *second = ops[:n:n], ops[n:]
}

// refuseOps gives every op of a batch the same refusal.
func refuseOps(b *store.Batch, err error) {
	for _, op := range b.Renews {
		op.Err = err
	}
	for _, op := range b.Appends {
		op.Err = err
	}
	for _, op := range b.Finishes {
		op.Err = err
	}
	for _, op := range b.Cancels {
		op.Err = err
	}
	for _, op := range b.Deletes {
		op.Err = err
	}
	for _, op := range b.Retries {
		op.Err = err
	}
	for _, op := range b.Writes {
		op.Err = err
	}
	for _, op := range b.Submits {
		op.Err = err
	}
	for _, op := range b.Dues {
		op.Err = err
	}
	for _, op := range b.Prunes {
		op.Err = err
	}
	for _, op := range b.Claims {
		op.Err, op.Claimed = err, nil
	}
}
