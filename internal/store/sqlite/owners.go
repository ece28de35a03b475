package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// The bytes that count for an owner besides the bodies of its side rows. Changing them needs a
// migration, because the sums are stored.
const (
	rowBytes      = 100 // of a side row
	deleteBytes   = 100 // of the record of a delete
	leftoverBytes = 300 // of an idempotency key whose job was deleted
)

// keep adds to the bytes that an owner keeps. The batch writes them once, at its end.
func (t *tx) keep(o job.Owner, bytes int64) {
	if t.kept == nil {
		t.kept = map[job.Owner]int64{}
	}
	t.kept[o] += bytes
}

// saveKept writes the changes of the batch.
func (t *tx) saveKept() error {
	for o, bytes := range t.kept {
		if bytes == 0 {
			continue
		}
		if err := t.q.addKept.text(o.Tenant).text(o.User).int(bytes).run(); err != nil {
			return err
		}
		if bytes < 0 {
			if err := t.q.deleteKept.text(o.Tenant).text(o.User).run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fitsOwner reports whether an owner may keep more bytes.
func (t *tx) fitsOwner(o job.Owner, more int64) (fits bool, err error) {
	if t.batch.MaxKept <= 0 || more <= 0 {
		return true, nil
	}
	bytes := t.kept[o] + more
	_, err = t.q.kept.text(o.Tenant).text(o.User).first(func(c column) error {
		bytes += c.int(0)
		return nil
	})
	return bytes <= t.batch.MaxKept, err
}

// checkKept returns the refusal of bytes that an owner may not keep.
func (t *tx) checkKept(o job.Owner, bytes int64) (refusal, err error) {
	fits, err := t.fitsOwner(o, bytes)
	if err != nil || fits {
		return nil, err
	}
	return store.OwnerFull(t.batch.MaxKept), nil
}

// keptBytes is how much a submit's owner keeps more with it: its rows, and its idempotency key,
// which may outlive its job.
func keptBytes(op *store.Submit) int64 {
	bytes := store.AddedBytes(op.Rows)
	if op.Idempotency != nil {
		bytes += leftoverBytes
	}
	return bytes
}

// Kept reads what owners keep; see [store.UpkeepReader].
func (s *Store) Kept(ctx context.Context) (k store.Kept, err error) {
	err = s.withReader(ctx, &s.listReaders, func(r *reader) error {
		return r.allKept.each(func(c column) error {
			bytes := c.int(2)
			if k.Bytes += bytes; bytes > k.MostBytes {
				k.Most, k.MostBytes = job.Owner{Tenant: c.text(0), User: c.text(1)}, bytes
			}
			return nil
		})
	}, s.syncer.visible)
	return k, err
}
