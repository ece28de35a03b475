package access

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Directory is all keys and tenants at one moment. It never changes: a [Change] makes another.
type Directory struct {
	// Sequence counts the changes that were ever stored. Two directories of one store with the
	// same sequence are equal.
	Sequence uint64
	// KeysOn is true once a key was made, and stays true.
	KeysOn bool

	keys    map[string]*Key
	tenants map[string]*Tenant // with deleted ones; always with the default one
}

// NewDirectory makes a directory of what is stored. The keys of tenants that are deleted, or that
// do not exist, count as revoked.
func NewDirectory(sequence uint64, keysOn bool, keys []*Key, tenants []*Tenant) *Directory {
	d := &Directory{Sequence: sequence, KeysOn: keysOn, keys: make(map[string]*Key, len(keys)), tenants: make(map[string]*Tenant, len(tenants)+1)}
	d.tenants[DefaultTenant] = &Tenant{ID: DefaultTenant}
	for _, t := range tenants {
		d.tenants[t.ID] = t
	}
	for _, k := range keys {
		d.keys[k.ID] = d.withTenant(k)
	}
	return d
}

// withTenant returns the key as its tenant allows it.
func (d *Directory) withTenant(k *Key) *Key {
	t := d.tenants[k.Tenant]
	if !k.Revoked.IsZero() || t != nil && t.Deleted.IsZero() {
		return k
	}
	revoked := *k
	if revoked.Revoked = k.Created; t != nil {
		revoked.Revoked = t.Deleted
	}
	return &revoked
}

// Key returns a key; see [Keys].
func (d *Directory) Key(id string) (*Key, bool) {
	k, ok := d.keys[id]
	return k, ok
}

// Tenant returns a tenant; see [Keys].
func (d *Directory) Tenant(id string) *Tenant {
	if t := d.tenants[id]; t != nil && t.Deleted.IsZero() {
		return t
	}
	return nil
}

// HasTenant reports whether there is a tenant, or one whose data is being deleted.
func (d *Directory) HasTenant(id string) bool { return d.tenants[id] != nil }

// Keys lists all keys, oldest first.
func (d *Directory) Keys() []*Key {
	return slices.SortedFunc(maps.Values(d.keys), func(a, b *Key) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// Tenants lists all tenants by name, also those whose data is being deleted.
func (d *Directory) Tenants() []*Tenant {
	return slices.SortedFunc(maps.Values(d.tenants), func(a, b *Tenant) int {
		return cmp.Compare(TenantName(a.ID), TenantName(b.ID))
	})
}

// SuccessorOf returns the live key that a key was rotated to; nil for none.
func (d *Directory) SuccessorOf(k *Key, now time.Time) *Key {
	for _, other := range d.keys {
		if other.Replaces == k.ID && other.State(now) == Live {
			return other
		}
	}
	return nil
}

// tenant returns a tenant that a change names.
func (d *Directory) tenant(id string) (*Tenant, error) {
	switch t := d.tenants[id]; {
	case t == nil:
		return nil, NoTenant(id)
	case !t.Deleted.IsZero():
		return nil, job.Errorf(job.Conflict, "the tenant %s is being deleted", job.Quote(id))
	default:
		return t, nil
	}
}

// key returns a key that a change names.
func (d *Directory) key(id string) (*Key, error) {
	k := d.keys[id]
	if k == nil {
		return nil, NoKey(id)
	}
	return k, nil
}

// NoKey returns the error for the id of a key that does not exist, or that the caller may not see.
func NoKey(id string) error { return job.Errorf(job.NotFound, "there is no key %s", job.Quote(id)) }

// NoTenant returns the error for a tenant that does not exist.
func NoTenant(id string) error {
	return job.Errorf(job.NotFound, "there is no tenant %s: make it first (meanwhile tenant create, POST /v1/admin/tenants)", job.Quote(TenantName(id)))
}

// Change is what a change writes. All of it is stored, or nothing.
type Change struct {
	Keys        []*Key    // new and changed ones
	Tenants     []*Tenant // new and changed ones
	GoneKeys    []string  // ids of keys that are forgotten
	GoneTenants []string  // ids of tenants that are forgotten
}

// Empty reports whether there is nothing to write.
func (c *Change) Empty() bool {
	return len(c.Keys)+len(c.Tenants)+len(c.GoneKeys)+len(c.GoneTenants) == 0
}

// Apply returns the directory after a change.
func (d *Directory) Apply(c Change) *Directory {
	keys, tenants := maps.Clone(d.keys), maps.Clone(d.tenants)
	for _, k := range c.Keys {
		keys[k.ID] = k
	}
	for _, t := range c.Tenants {
		tenants[t.ID] = t
	}
	for _, id := range c.GoneKeys {
		delete(keys, id)
	}
	for _, id := range c.GoneTenants {
		delete(tenants, id)
	}
	return NewDirectory(d.Sequence+1, d.KeysOn || len(c.Keys) > 0, slices.Collect(maps.Values(keys)), slices.Collect(maps.Values(tenants)))
}
