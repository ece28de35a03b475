package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Bounds of keys and tenants. All of them are in the memory of each process.
const (
	MaxKeys      = 10_000
	MaxTenants   = 10_000
	MaxKeyName   = 64 // bytes
	MaxKeyQueues = 64 // of [Key.Queues], and of [Key.Work]
)

// Key is an API key. It belongs to a tenant and has scopes. Its secret is not stored.
type Key struct {
	ID     string // [KeyIDSize] characters, no secret
	Tenant string // the tenant's id; see [TenantID]
	Name   string // for people; unique among the live keys of the tenant, but for a rotation
	Hash   [sha256.Size]byte
	Scopes Scopes
	// Work are the queues that Scopes' Work is for, sorted; [AnyQueue] for every queue.
	Work []string
	// Queues are the queues that Submit is for, sorted; none for every queue.
	Queues []string
	// ActAs believes X-User-ID: the key acts for one user at a time. Without it the key reads its
	// whole tenant.
	ActAs bool
	// AllTenants lets Work claim the jobs of every tenant.
	AllTenants bool

	Created time.Time // all times by the store's clock
	Expires time.Time // zero for never
	Revoked time.Time // zero for a key that was not revoked
	// Replaces is the id of the key that this one was rotated from, or "".
	Replaces string
}

// KeyState says whether a key is accepted.
type KeyState string

// The states of a key.
const (
	Live    KeyState = "live"
	Expired KeyState = "expired"
	Revoked KeyState = "revoked"
)

// State returns the state of the key at a time of the store's clock.
func (k *Key) State(now time.Time) KeyState {
	switch {
	case !k.Revoked.IsZero():
		return Revoked
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return Expired
	default:
		return Live
	}
}

// Matches reports whether the secret is the key's, in a time that does not depend on the secret.
func (k *Key) Matches(secret Secret) bool {
	hash := sha256.Sum256(secret[:])
	return subtle.ConstantTimeCompare(hash[:], k.Hash[:]) == 1
}

// MaySubmitTo reports whether the key's restriction to queues allows a queue. It does not check
// the scope Submit.
func (k *Key) MaySubmitTo(queue string) bool {
	return len(k.Queues) == 0 || slices.Contains(k.Queues, queue)
}

// MayWorkOn reports whether the key may claim and finish jobs of a queue.
func (k *Key) MayWorkOn(queue string) bool {
	return k.Scopes&Admin != 0 || k.Scopes&Work != 0 && (slices.Contains(k.Work, AnyQueue) || slices.Contains(k.Work, queue))
}

// ScopeNames returns the names of the key's scopes, as [ParseScopes] reads them.
func (k *Key) ScopeNames() []string {
	names := make([]string, 0, len(scopeNames)+len(k.Work))
	for i, name := range scopeNames {
		switch scope := Scopes(1) << i; {
		case k.Scopes&scope == 0:
		case scope == Work:
			for _, queue := range k.Work {
				names = append(names, workPrefix+queue)
			}
		default:
			names = append(names, name)
		}
	}
	return names
}

// Check returns [job.Invalid] for a key that must not be stored. Its Field names the wrong part.
func (k *Key) Check() error {
	switch {
	case !ValidTenant(k.Tenant):
		return invalid("/tenant", "%s is no name of a tenant: %s", job.Quote(k.Tenant), tenantRule)
	case !validName(k.Name):
		return invalid("/name", "a key needs a name: 1 to %d of a-z, A-Z, 0-9, point, _ and -, and it begins with a letter or digit", MaxKeyName)
	case k.Scopes == 0:
		return invalid("/scopes", "a key needs a scope or a role; the scopes are %s", knownScopes())
	case k.Scopes&^AllScopes != 0, (k.Scopes&Work != 0) != (len(k.Work) > 0):
		return invalid("/scopes", "the scopes of the key do not fit together")
	case k.Scopes&Admin != 0 && k.Tenant != DefaultTenant:
		return invalid("/tenant", "a key with the scope admin is for all tenants: it belongs to the tenant %s", DefaultTenantName)
	case k.Scopes&Admin != 0 && k.ActAs:
		return invalid("/act_as", "a key with the scope admin cannot act as users")
	case k.AllTenants && k.Scopes&Work == 0:
		return invalid("/all_tenants", "all_tenants is for the keys of workers: it needs a scope work:QUEUE")
	case len(k.Queues) > 0 && !k.Scopes.Allow(Submit):
		return invalid("/queues", "queues says where a key may submit: it needs the scope submit")
	case len(k.Queues) > MaxKeyQueues || len(k.Work) > MaxKeyQueues:
		return invalid("/queues", "a key names at most %d queues", MaxKeyQueues)
	}
	for _, queue := range k.Queues {
		if !validQueue(queue) {
			return invalid("/queues", "%s is no name of a queue", job.Quote(queue))
		}
	}
	return nil
}

// MayGive returns [job.Forbidden] where the administrator of a tenant may not make a key: one of
// another tenant, or one that may do more than the administrator's own key. A key with the scope
// admin may make every key.
func (k *Key) MayGive(made *Key) error {
	switch {
	case k.Scopes&Admin != 0:
		return nil
	case made.Tenant != k.Tenant:
		return job.Errorf(job.Forbidden, "an administrator of a tenant makes keys of that tenant only")
	case made.Scopes&Admin != 0 || made.AllTenants:
		return job.Errorf(job.Forbidden, "only a key with the scope admin gives the scope admin or all_tenants")
	case !k.Scopes.Allow(made.Scopes &^ Work):
		return job.Errorf(job.Forbidden, "your key cannot give scopes that it does not have: %s", made.Scopes&^Work&^k.Scopes.included())
	case slices.ContainsFunc(made.Work, func(queue string) bool { return !k.MayWorkOn(queue) }):
		return job.Errorf(job.Forbidden, "your key cannot give work on queues that it may not work on itself")
	case len(k.Queues) > 0 && made.Scopes&Submit != 0 && (len(made.Queues) == 0 || slices.ContainsFunc(made.Queues, func(queue string) bool { return !k.MaySubmitTo(queue) })):
		return job.Errorf(job.Forbidden, "your key submits to some queues only, and cannot give others")
	default:
		return nil
	}
}

func invalid(field, format string, args ...any) error {
	err := job.Errorf(job.Invalid, format, args...)
	err.Field = field
	return err
}

// validName reports whether a text may be the name of a key.
func validName(name string) bool {
	if name == "" || len(name) > MaxKeyName {
		return false
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// validQueue reports whether a text may be the name of a queue.
func validQueue(name string) bool {
	if name == "" || len(name) > job.MaxQueueName {
		return false
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '-') {
			return false
		}
	}
	return true
}
