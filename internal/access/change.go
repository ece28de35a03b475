package access

import (
	"crypto/sha256"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// How long keys are kept and overlap.
const (
	// KeepDead is how long an expired or revoked key stays in lists.
	KeepDead = 30 * 24 * time.Hour
	// DefaultOverlap and MaxOverlap are how long both keys of a rotation are accepted.
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 30 * 24 * time.Hour
	// pruneAtOnce is how many keys one change forgets.
	pruneAtOnce = 100
)

// CreateKey adds a key. now becomes its Created. The refusals are those of [Key.Check];
// [job.NotFound] for an unknown tenant; [job.Conflict] for a name that a live key of the tenant
// has, and past [MaxKeys].
func (d *Directory) CreateKey(k Key, now time.Time) (Change, error) {
	k.Created = now
	if err := k.Check(); err != nil {
		return Change{}, err
	}
	if _, err := d.tenant(k.Tenant); err != nil {
		return Change{}, err
	}
	if err := d.checkNew(&k, now); err != nil {
		return Change{}, err
	}
	for _, other := range d.keys {
		if other.Tenant == k.Tenant && other.Name == k.Name && other.State(now) == Live {
			return Change{}, job.Errorf(job.Conflict, "the tenant %s has a key %s already, %s: rotate it, revoke it, or choose another name",
				job.Quote(TenantName(k.Tenant)), job.Quote(k.Name), other.ID)
		}
	}
	return Change{Keys: []*Key{&k}}, nil
}

// checkNew checks what new keys have in common.
func (d *Directory) checkNew(k *Key, now time.Time) error {
	switch {
	case !k.Expires.IsZero() && !k.Expires.After(now):
		return invalid("/expires_at", "the key would expire at %s, and that has passed", k.Expires.UTC().Format(time.RFC3339))
	case !k.Expires.IsZero() && k.Expires.Sub(now) > MaxLifetime:
		return invalid("/expires_at", "a key expires within %d years, or never", int(MaxLifetime.Hours()/24/365))
	case len(d.keys) >= MaxKeys:
		return job.Errorf(job.Conflict, "there are %d keys, which is the most: revoked and expired ones are forgotten after %d days", len(d.keys), int(KeepDead.Hours()/24))
	case d.keys[k.ID] != nil:
		return job.Errorf(job.Conflict, "there is a key %s already", k.ID)
	default:
		return nil
	}
}

// MaxLifetime bounds the expiry of a key that has one.
const MaxLifetime = 10 * 365 * 24 * time.Hour

// RevokeKey ends a key at once. A key that is revoked already stays as it is.
func (d *Directory) RevokeKey(id string, now time.Time) (Change, error) {
	k, err := d.key(id)
	if err != nil || !k.Revoked.IsZero() {
		return Change{}, err
	}
	revoked := *k
	revoked.Revoked = now
	return Change{Keys: []*Key{&revoked}}, nil
}

// Rotation is what a rotation gives the new key.
type Rotation struct {
	ID      string
	Hash    [sha256.Size]byte
	Overlap time.Duration // how long the old key is still accepted; 0 to [MaxOverlap]
	Expires time.Time     // of the new key; zero for the lifetime that the old one had
}

// RotateKey adds a key that may do what an old one may, and lets the old one expire after the
// overlap. The first key of the change is the new one. [job.Conflict] for a key that is not live,
// or that was rotated already: the newer key is to be rotated then.
func (d *Directory) RotateKey(id string, r Rotation, now time.Time) (Change, error) {
	k, err := d.key(id)
	if err != nil {
		return Change{}, err
	}
	if r.Overlap < 0 || r.Overlap > MaxOverlap {
		return Change{}, invalid("/overlap_s", "both keys may be accepted for 0 to %d days", int(MaxOverlap.Hours()/24))
	}
	if state := k.State(now); state != Live {
		return Change{}, job.Errorf(job.Conflict, "the key %s is %s: make a new one", id, state)
	}
	if newer := d.SuccessorOf(k, now); newer != nil {
		return Change{}, job.Errorf(job.Conflict, "the key %s was rotated to %s already: rotate that one", id, newer.ID)
	}
	made, old := *k, *k
	made.ID, made.Hash, made.Replaces, made.Created = r.ID, r.Hash, k.ID, now
	if made.Expires = r.Expires; made.Expires.IsZero() && !k.Expires.IsZero() {
		made.Expires = now.Add(k.Expires.Sub(k.Created))
	}
	if err := d.checkNew(&made, now); err != nil {
		return Change{}, err
	}
	if end := now.Add(r.Overlap); k.Expires.IsZero() || end.Before(k.Expires) {
		old.Expires = end
	}
	return Change{Keys: []*Key{&made, &old}}, nil
}

// CreateTenant adds a tenant. [job.Conflict] for one that exists, and past [MaxTenants].
func (d *Directory) CreateTenant(id string, limits Limits, now time.Time) (Change, error) {
	if !ValidTenant(id) {
		return Change{}, invalid("/name", "%s is no name of a tenant: %s", job.Quote(id), tenantRule)
	}
	if err := limits.Check(); err != nil {
		return Change{}, err
	}
	switch t := d.tenants[id]; {
	case t != nil && !t.Deleted.IsZero():
		return Change{}, job.Errorf(job.Conflict, "the tenant %s is being deleted: its name is free when that is done", job.Quote(id))
	case t != nil:
		return Change{}, job.Errorf(job.Conflict, "there is a tenant %s already", job.Quote(TenantName(id)))
	case len(d.tenants) >= MaxTenants:
		return Change{}, job.Errorf(job.Conflict, "there are %d tenants, which is the most", len(d.tenants))
	}
	return Change{Tenants: []*Tenant{{ID: id, Limits: limits, Created: now}}}, nil
}

// SetLimits replaces the limits of a tenant, also those of the default one.
func (d *Directory) SetLimits(id string, limits Limits, now time.Time) (Change, error) {
	t, err := d.tenant(id)
	if err == nil {
		err = limits.Check()
	}
	if err != nil || t.Limits == limits {
		return Change{}, err
	}
	changed := *t
	if changed.Limits = limits; changed.Created.IsZero() {
		changed.Created = now
	}
	return Change{Tenants: []*Tenant{&changed}}, nil
}

// DeleteTenant begins the deletion of a tenant. Its keys count as revoked from then on. A tenant
// whose deletion has begun stays as it is. The default tenant cannot be deleted.
func (d *Directory) DeleteTenant(id string, now time.Time) (Change, error) {
	if t := d.tenants[id]; t != nil && !t.Deleted.IsZero() {
		return Change{}, nil
	}
	t, err := d.tenant(id)
	if err != nil {
		return Change{}, err
	}
	if id == DefaultTenant {
		return Change{}, job.Errorf(job.Forbidden, "the tenant %s cannot be deleted", DefaultTenantName)
	}
	deleted := *t
	deleted.Deleted = now
	return Change{Tenants: []*Tenant{&deleted}}, nil
}

// ForgetTenant forgets some keys of a tenant whose data was deleted, and at last the tenant. more
// is true while there are keys left.
func (d *Directory) ForgetTenant(id string) (c Change, more bool) {
	t := d.tenants[id]
	if t == nil || t.Deleted.IsZero() {
		return Change{}, false
	}
	for _, k := range d.keys {
		if k.Tenant != id {
			continue
		}
		if len(c.GoneKeys) == pruneAtOnce {
			return c, true
		}
		c.GoneKeys = append(c.GoneKeys, k.ID)
	}
	c.GoneTenants = []string{id}
	return c, false
}

// Prune forgets some of the keys that have been expired or revoked for [KeepDead].
func (d *Directory) Prune(now time.Time) (c Change) {
	for _, k := range d.keys {
		end := k.Revoked
		if end.IsZero() || !k.Expires.IsZero() && k.Expires.Before(end) {
			end = k.Expires
		}
		if k.State(now) != Live && now.Sub(end) >= KeepDead && len(c.GoneKeys) < pruneAtOnce {
			c.GoneKeys = append(c.GoneKeys, k.ID)
		}
	}
	return c
}
