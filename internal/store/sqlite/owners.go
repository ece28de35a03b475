package sqlite

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// KeptBytes reads the bytes that an owner keeps; see [ops.SumTx].
func (t *tx) KeptBytes(o job.Owner) (bytes int64, err error) {
	_, err = t.q.kept.text(o.Tenant).text(o.User).first(func(c column) error { bytes = c.int(0); return nil })
	return bytes, err
}

// AddToKept adds to the bytes that an owner keeps; see [ops.SumTx].
func (t *tx) AddToKept(o job.Owner, bytes int64) error {
	if err := t.q.addKept.text(o.Tenant).text(o.User).int(bytes).run(); err != nil || bytes > 0 {
		return err
	}
	return t.q.deleteKept.text(o.Tenant).text(o.User).run()
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
