package ops

import (
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

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

// keep adds to the bytes that an owner keeps. The batch writes them once, at its end.
func (a *applier) keep(o job.Owner, bytes int64) {
	if a.kept == nil {
		a.kept = map[job.Owner]int64{}
	}
	a.kept[o] += bytes
}

// saveKept writes the changes of the batch.
func (a *applier) saveKept() error {
	for o, bytes := range a.kept {
		if bytes == 0 {
			continue
		}
		if err := a.tx.AddToKept(o, bytes); err != nil {
			return err
		}
	}
	return nil
}

// fitsOwner reports whether an owner may keep more bytes.
func (a *applier) fitsOwner(o job.Owner, more int64) (fits bool, err error) {
	if a.b.MaxKept <= 0 || more <= 0 {
		return true, nil
	}
	stored, err := a.tx.KeptBytes(o)
	return stored+a.kept[o]+more <= a.b.MaxKept, err
}

// checkKept returns the refusal of bytes that an owner may not keep.
func (a *applier) checkKept(o job.Owner, bytes int64) (refusal, err error) {
	fits, err := a.fitsOwner(o, bytes)
	if err != nil || fits {
		return nil, err
	}
	return store.OwnerFull(a.b.MaxKept), nil
}
