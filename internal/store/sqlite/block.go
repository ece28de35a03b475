package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store/sealed"
)

// kindBlock marks a row of the table output that holds a block. No entry has this kind.
const kindBlock = 0

// A block is the encoding of entries with consecutive numbers: for each entry its kind,
// attempt, events and length as varints, then its data. The number of the last entry is stored
// beside the block. Two consecutive blocks concatenate to one block.

// appendBlock appends entries to a block.
func appendBlock(block []byte, entries []job.Entry) []byte {
	for i := range entries {
		e := &entries[i]
		for _, v := range [...]uint64{uint64(e.Kind), uint64(e.Attempt), uint64(e.Events), uint64(len(e.Data))} {
			block = binary.AppendUvarint(block, v)
		}
		block = append(block, e.Data...)
	}
	return block
}

var errBlock = errors.New("sqlite: a block of output is damaged")

// jobLog names the log of a job, and has the keys that open its rows.
type jobLog struct {
	ring *sealed.Ring
	id   job.ID
	n    int64
}

// open returns the plain data of a row of the log. seq is that of its last entry. A row that cannot
// be opened although its key is known is a damaged block.
func (l jobLog) open(kind, seq int64, data []byte) ([]byte, error) {
	plain, err := l.ring.Open(logPlace(l.id, kind, seq), data)
	if errors.Is(err, sealed.ErrDamaged) {
		err = fmt.Errorf("%w: %w", errBlock, err)
	}
	return plain, err
}

// logPlace is the place of a row of a job's log.
func logPlace(id job.ID, kind, seq int64) sealed.Place {
	if kind == kindBlock {
		return sealed.Block(id, seq)
	}
	return sealed.Entry(id, seq)
}

// eachEntry calls f for every entry of a block, in order and without their numbers. The data
// of an entry is a slice of the block. A damaged block returns errBlock, after calls for the
// entries before the damage.
func eachEntry(block []byte, f func(job.Entry)) error {
	for len(block) > 0 {
		var v [4]uint64
		for i := range v {
			var n int
			if v[i], n = binary.Uvarint(block); n <= 0 {
				return errBlock
			}
			block = block[n:]
		}
		if v[3] > uint64(len(block)) || v[0] == 0 || v[0] > 0xff || v[1] > maxInt || v[2] > maxInt {
			return errBlock
		}
		f(job.Entry{Kind: job.Kind(v[0]), Attempt: int(v[1]), Events: int(v[2]), Data: block[:v[3]:v[3]]})
		block = block[v[3]:]
	}
	return nil
}

const maxInt = 1<<31 - 1

// countEntries returns the number of entries in a block.
func countEntries(block []byte) (n int64, err error) {
	err = eachEntry(block, func(job.Entry) { n++ })
	return n, err
}
