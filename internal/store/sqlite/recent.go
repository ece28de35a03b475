package sqlite

import (
	"bytes"

	"github.com/meanwhile-run/meanwhile/internal/store"
)

// remembered is how many batches the memory holds. The disk has the last
// [store.MostUnsynced]; the memory has more, for tests open a store once and let several
// engines share it.
const recentInMemory = 8 * store.MostUnsynced

// recent are the ids of the batches that were applied last, one after another, the oldest
// first. A commit that fails takes nothing from it.
type recentBatches struct {
	ids     []byte
	encoded []byte // for with
}

const idBytes = len(store.BatchID{})

// has says whether a batch is among them.
func (r *recentBatches) has(id store.BatchID) bool {
	for at := len(r.ids) - idBytes; at >= 0; at -= idBytes {
		if bytes.Equal(r.ids[at:at+idBytes], id[:]) {
			return true
		}
	}
	return false
}

// add notes a batch that was applied.
func (r *recentBatches) add(id store.BatchID) {
	if len(r.ids) == recentInMemory*idBytes {
		r.ids = r.ids[:copy(r.ids, r.ids[idBytes:])]
	}
	r.ids = append(r.ids, id[:]...)
}

// with returns what the disk is to remember once a batch is applied.
func (r *recentBatches) encodeWith(id store.BatchID) []byte {
	kept := r.ids[max(0, len(r.ids)-(store.MostUnsynced-1)*idBytes):]
	r.encoded = append(append(r.encoded[:0], kept...), id[:]...)
	return r.encoded
}

// load adds what the disk remembers: after a commit that failed, that may be one more.
func (r *recentBatches) load(ids []byte) {
	for ; len(ids) >= idBytes; ids = ids[idBytes:] {
		if id := store.BatchID(ids[:idBytes]); !r.has(id) {
			r.add(id)
		}
	}
}
