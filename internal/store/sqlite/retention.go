package sqlite

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/codec"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

// Prunable reads jobs in the order of their row numbers; see [ops.RetentionTx].
func (t *tx) Prunable(after int64, limit int) (jobs []*ops.Job, err error) {
	err = t.q.pruneCandidates.int(after).int(int64(limit)).each(func(c column) error {
		j := &ops.Job{N: c.int(0), FileCount: int(c.int(9)), IdempotencyKey: c.text(5), Job: job.Job{
			ID: c.id(8), Owner: job.Owner{Tenant: c.text(1), User: c.text(2)}, State: job.State(c.int(3)),
			ExpiresAt: c.time(4), CreatedAt: c.time(6), OutputBytes: c.int(7), InputBytes: c.int(10),
		}}
		extra := c.bytes(11)
		j.Tally, j.HasRefs = codec.DecodeTally(extra), codec.HasRefs(extra)
		jobs = append(jobs, j)
		return nil
	})
	return jobs, err
}

// BodyBytes returns the size of a job's input and result; see [ops.RetentionTx].
func (t *tx) BodyBytes(j *ops.Job) (bytes int64, err error) {
	_, err = t.q.bodyBytes.int(j.N).first(func(c column) error { bytes = c.int(0); return nil })
	return bytes, err
}

// KeyUse reads an idempotency key; see [ops.KeyTx].
func (t *tx) KeyUse(k ops.OwnedKey) (use *ops.KeyUse, err error) {
	_, err = t.q.idempotent.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).first(func(c column) error {
		use = &ops.KeyUse{Job: c.id(0), Until: c.time(2)}
		c.stmt.ColumnBytes(1, use.Hash[:])
		return nil
	})
	return use, err
}

// InsertKey inserts an idempotency key; see [ops.KeyTx].
func (t *tx) InsertKey(k ops.OwnedKey, use ops.KeyUse) error {
	return t.q.insertIdempotent.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).id(&use.Job).blob(use.Hash[:]).time(use.Until).run()
}

// DeleteKey deletes an idempotency key; see [ops.KeyTx].
func (t *tx) DeleteKey(k ops.OwnedKey) error {
	return t.q.deleteIdempotent.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).run()
}

// InsertLeftover records an idempotency key without a job; see [ops.KeyTx].
func (t *tx) InsertLeftover(k ops.OwnedKey, until time.Time) error {
	return t.q.insertLeftover.time(until).text(k.Owner.Tenant).text(k.Owner.User).text(k.Key).run()
}

// TakeLeftovers reads and deletes old records of keys; see [ops.KeyTx].
func (t *tx) TakeLeftovers(limit int) (keys []ops.OwnedKey, err error) {
	var rows []int64
	err = t.q.oldLeftovers.time(t.now).int(int64(limit)).each(func(c column) error {
		rows = append(rows, c.int(0))
		keys = append(keys, ops.OwnedKey{Owner: job.Owner{Tenant: c.text(1), User: c.text(2)}, Key: c.text(3)})
		return nil
	})
	for _, n := range rows {
		if err == nil {
			err = t.q.deleteLeftover.int(n).run()
		}
	}
	return keys, err
}

// SaveDelete records a delete; see [ops.KeyTx].
func (t *tx) SaveDelete(of store.OwnedID, until time.Time) error {
	return t.q.insertDeleted.id(&of.ID).text(of.Owner.Tenant).text(of.Owner.User).time(until).run()
}

// DeletedBy reads who deleted a job; see [ops.KeyTx].
func (t *tx) DeletedBy(id job.ID) (by job.Owner, known bool, err error) {
	known, err = t.q.wasDeleted.id(&id).first(func(c column) error {
		by = job.Owner{Tenant: c.text(0), User: c.text(1)}
		return nil
	})
	return by, known, err
}

// TakeDeletes reads and deletes old records of deletes; see [ops.KeyTx].
func (t *tx) TakeDeletes(limit int) (deletes []store.OwnedID, err error) {
	err = t.q.oldDeleted.time(t.now).int(int64(limit)).each(func(c column) error {
		deletes = append(deletes, store.OwnedID{ID: c.id(0), Owner: job.Owner{Tenant: c.text(1), User: c.text(2)}})
		return nil
	})
	for i := range deletes {
		if err == nil {
			err = t.q.deleteDeleted.id(&deletes[i].ID).run()
		}
	}
	return deletes, err
}
