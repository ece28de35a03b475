package engine

import (
	"maps"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// halves splits a batch in two that are committed one after the other. The kinds
// keep their order: the first half has the earlier kinds.
func halves(b *store.Batch) (first, second *store.Batch) {
	first, second = store.NewBatch(), store.NewBatch()
	first.Limits, second.Limits = b.Limits, b.Limits
	room := b.Len() / 2
	split(b.Pauses, &first.Pauses, &second.Pauses, &room)
	split(b.Renews, &first.Renews, &second.Renews, &room)
	split(b.Presences, &first.Presences, &second.Presences, &room)
	split(b.Appends, &first.Appends, &second.Appends, &room)
	split(b.Finishes, &first.Finishes, &second.Finishes, &room)
	split(b.Cancels, &first.Cancels, &second.Cancels, &room)
	split(b.Deletes, &first.Deletes, &second.Deletes, &room)
	split(b.Retries, &first.Retries, &second.Retries, &room)
	split(b.Writes, &first.Writes, &second.Writes, &room)
	room = alignToGroups(b.Submits, room)
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

// wholeGroups is the room, made less or more so that no group of submits is split.
func alignToGroups(ops []*store.Submit, room int) int {
	n := min(room, len(ops))
	for n > 0 && sameGroup(ops, n) {
		n--
	}
	if n == 0 && room > 0 && len(ops) > 0 {
		for n = 1; sameGroup(ops, n); {
			n++
		}
	}
	if n < min(room, len(ops)) || n > room {
		return n
	}
	return room
}

// sameGroup says whether the boundary before op n runs through a group.
func sameGroup(ops []*store.Submit, n int) bool {
	return n < len(ops) && ops[n].Group != nil && ops[n].Group == ops[n-1].Group
}

// oneGroup says whether a batch is one group of submits and nothing else.
func isOneGroup(b *store.Batch) bool {
	return len(b.Submits) == b.Len() && b.Submits[0].Group != nil && b.Submits[0].Group.Size == b.Len()
}

// join puts the answers of a batch's halves together.
func joinAnswers(b, first, second *store.Batch) {
	b.Counts = map[string]job.Counts{}
	maps.Copy(b.Counts, first.Counts)
	maps.Copy(b.Counts, second.Counts)
	b.Moved = append(first.Moved, second.Moved...)
	b.Made = append(first.Made, second.Made...)
	b.Removed = append(first.Removed, second.Removed...)
	b.Damaged = append(first.Damaged, second.Damaged...)
}

// refuseOps gives every op of a batch the same refusal.
func refuseOps(b *store.Batch, err error) {
	for _, op := range b.Pauses {
		op.Err = err
	}
	for _, op := range b.Renews {
		op.Err = err
	}
	for _, op := range b.Presences {
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
