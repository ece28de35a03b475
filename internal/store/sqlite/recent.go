package sqlite

import (
	"bytes"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// recentInMemory is the number of batch ids in memory. The disk has the last
// [store.MaxUnsynced]. The memory has more, because tests open one store and let several
// engines share it.
const recentInMemory = 8 * store.MaxUnsynced

// recentBatches are the ids of the last batches, concatenated, oldest first. A commit that
// fails removes none.
type recentBatches struct {
	ids     []byte
	encoded []byte // the buffer of encodeWith
}

const idBytes = len(store.BatchID{})

// has reports whether it contains a batch's id.
func (r *recentBatches) has(id store.BatchID) bool {
	for at := len(r.ids) - idBytes; at >= 0; at -= idBytes {
		if bytes.Equal(r.ids[at:at+idBytes], id[:]) {
			return true
		}
	}
	return false
}

// add adds a batch that was applied.
func (r *recentBatches) add(id store.BatchID) {
	if len(r.ids) == recentInMemory*idBytes {
		r.ids = r.ids[:copy(r.ids, r.ids[idBytes:])]
	}
	r.ids = append(r.ids, id[:]...)
}

// encodeWith returns the ids to store with a batch: the batch's own and the last ones before it.
func (r *recentBatches) encodeWith(id store.BatchID) []byte {
	kept := r.ids[max(0, len(r.ids)-(store.MaxUnsynced-1)*idBytes):]
	r.encoded = append(append(r.encoded[:0], kept...), id[:]...)
	return r.encoded
}

// load adds the ids that the disk has. After a failed commit that may be one more.
func (r *recentBatches) load(ids []byte) {
	for ; len(ids) >= idBytes; ids = ids[idBytes:] {
		if id := store.BatchID(ids[:idBytes]); !r.has(id) {
			r.add(id)
		}
	}
}
