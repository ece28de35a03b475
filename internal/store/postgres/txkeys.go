package postgres

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
	"github.com/meanwhile-run/meanwhile/internal/store/ops"
)

var (
	selectKeys = &statement{"select_keys", "select u.*, k.* from " + unnest("ttt") + " u (t, o, w) cross join lateral (" +
		"select job, hash, until from idempotency where tenant = t and usr = o and key = w offset 0) k"}
	takeLeftovers = &statement{"take_leftovers", `delete from leftovers where n = any(array
		(select n from leftovers where until <= $1::bigint order by until limit $2::bigint)) returning tenant, usr, key`}
	selectDeleted = &statement{"select_deleted", "select tenant, usr from deleted where id = $1::uuid"}
	takeDeletes   = &statement{"take_deletes", `delete from deleted where id = any(array
		(select id from deleted where until <= $1::bigint order by until limit $2::bigint)) returning tenant, usr, id`}
)

// keyState is what the batch knows of an idempotency key.
type keyState struct {
	use   *ops.KeyUse // nil for a free key
	dirty bool
}

// deleteRecord is the record of a delete.
type deleteRecord struct {
	by    job.Owner
	until time.Time
}

// addKeys adds the read of idempotency keys.
func (t *tx) addKeys(keys []ops.OwnedKey) {
	names := newTable("ttt")
	for _, k := range keys {
		if t.side.keys[k] == nil {
			t.side.keys[k] = &keyState{}
			if isStorable(k.Owner.Tenant + k.Owner.User + k.Key) {
				names.text(k.Owner.Tenant).text(k.Owner.User).text(k.Key)
			}
		}
	}
	if names.empty() {
		return
	}
	t.reads.add(selectKeys, func(r *record) {
		k := ops.OwnedKey{Owner: job.Owner{Tenant: r.text(), User: r.text()}, Key: r.text()}
		use := &ops.KeyUse{Job: r.uuid()}
		copy(use.Hash[:], r.raw())
		use.Until = r.time()
		t.side.keys[k].use = use
	}, names.params()...)
}

// KeyUse reads the use of an idempotency key; see [ops.KeyTx].
func (t *tx) KeyUse(k ops.OwnedKey) (*ops.KeyUse, error) {
	if t.side.keys[k] == nil {
		t.addKeys([]ops.OwnedKey{k})
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return t.side.keys[k].use, nil
}

// setKey changes the use of a key.
func (t *tx) setKey(k ops.OwnedKey, use *ops.KeyUse) {
	s := t.side.keys[k]
	if s == nil {
		s = &keyState{}
		t.side.keys[k] = s
	}
	if s.use = use; !s.dirty {
		s.dirty = true
		t.out.keys = append(t.out.keys, k)
	}
}

// InsertKey writes a key; see [ops.KeyTx].
func (t *tx) InsertKey(k ops.OwnedKey, use ops.KeyUse) error {
	t.setKey(k, &use)
	return nil
}

// DeleteKey deletes a key; see [ops.KeyTx].
func (t *tx) DeleteKey(k ops.OwnedKey) error {
	t.setKey(k, nil)
	return nil
}

// InsertLeftover records a key that lost its job; see [ops.KeyTx].
func (t *tx) InsertLeftover(k ops.OwnedKey, until time.Time) error {
	t.out.leftovers.int(until.UnixMicro()).text(k.Owner.Tenant).text(k.Owner.User).text(k.Key)
	return nil
}

// TakeLeftovers takes the oldest records of keys; see [ops.KeyTx].
func (t *tx) TakeLeftovers(limit int) (list []ops.OwnedKey, err error) {
	t.writePending()
	t.wrote = true
	t.reads.add(takeLeftovers, func(r *record) {
		list = append(list, ops.OwnedKey{Owner: job.Owner{Tenant: r.text(), User: r.text()}, Key: r.text()})
	}, intParam(t.now.UnixMicro()), intParam(int64(limit)))
	return list, t.read()
}

// SaveDelete records a delete; see [ops.KeyTx].
func (t *tx) SaveDelete(of store.OwnedID, until time.Time) error {
	t.out.deletes[of.ID] = deleteRecord{of.Owner, until}
	return nil
}

// DeletedBy reads who deleted a job; see [ops.KeyTx].
func (t *tx) DeletedBy(id job.ID) (by job.Owner, known bool, err error) {
	if d, pending := t.out.deletes[id]; pending {
		return d.by, true, nil
	}
	t.reads.add(selectDeleted, func(r *record) { by, known = job.Owner{Tenant: r.text(), User: r.text()}, true }, id[:])
	return by, known, t.read()
}

// TakeDeletes takes the oldest records of deletes; see [ops.KeyTx].
func (t *tx) TakeDeletes(limit int) (list []store.OwnedID, err error) {
	t.writePending()
	t.wrote = true
	t.reads.add(takeDeletes, func(r *record) {
		list = append(list, store.OwnedID{Owner: job.Owner{Tenant: r.text(), User: r.text()}, ID: r.uuid()})
	}, intParam(t.now.UnixMicro()), intParam(int64(limit)))
	return list, t.read()
}
