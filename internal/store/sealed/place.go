package sealed

import (
	"encoding/binary"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Place is where a value is stored. A value that was sealed for one place does not open at
// another.
type Place struct {
	kind  kind
	clear bool // values of the place are not sealed
	job   job.ID
	seq   int64
	set   store.RowSet
	id    string
}

// kind is the first byte of the authenticated data of a value. A number is never used again.
type kind byte

const (
	inputKind kind = iota + 1
	resultKind
	entryKind
	blockKind
	tailKind
	rowKind
)

// placeSize is the size of most places, in bytes.
const placeSize = 128

// Input is the place of a job's input.
func Input(id job.ID) Place { return Place{kind: inputKind, job: id} }

// Result is the place of the body of a job's result.
func Result(id job.ID) Place { return Place{kind: resultKind, job: id} }

// Entry is the place of an entry of a job's output.
func Entry(id job.ID, seq int64) Place { return Place{kind: entryKind, job: id, seq: seq} }

// Block is the place of several entries of a job's output, the last of which has this number.
func Block(id job.ID, seq int64) Place { return Place{kind: blockKind, job: id, seq: seq} }

// Tail is the place of entries of a running job's output that are not in its log yet; the last of
// them has this number.
func Tail(id job.ID, seq int64) Place { return Place{kind: tailKind, job: id, seq: seq} }

// Row is the place of a side row. Those of the tenant of [store.ServerOwner] are never sealed.
func Row(of store.RowSet, id string) Place {
	return Place{kind: rowKind, clear: of.Owner.Tenant == store.ServerOwner.Tenant, set: of, id: id}
}

// appendTo appends the authenticated data.
func (p Place) appendTo(b []byte) []byte {
	b = append(b, byte(p.kind))
	if p.kind != rowKind {
		return binary.BigEndian.AppendUint64(append(b, p.job[:]...), uint64(p.seq))
	}
	for _, name := range [...]string{p.set.Owner.Tenant, p.set.Owner.User, p.set.Kind, p.set.Parent, p.id} {
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
	}
	return b
}
