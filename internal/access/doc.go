// Package access has the API keys and the tenants of a server: what a key may do, how it is
// written as text and as a stored row, and which key may make which.
//
// The package is pure. It reads no clock and no disk, and decides the same in every process.
// [Keys] is how the gate looks up keys; internal/server implements it.
package access

import "time"

// Keys is a snapshot in memory of all keys and tenants. No method reads the store or blocks, so
// a wrong key costs no read. A change by this process shows at once, one by another process
// within 5 seconds. The methods may be called at any time from any goroutine.
type Keys interface {
	// On reports whether a key was ever made. From then on every request needs one, even if all
	// keys are revoked or pruned since.
	On() bool
	// Find returns a key by its id, also a revoked or expired one until it is pruned. The key of a
	// deleted tenant counts as revoked. The caller must not change the key.
	Find(id string) (*Key, bool)
	// Tenant returns a tenant by its id; nil for an unknown or deleted one. [DefaultTenant] always
	// exists. The caller must not change the tenant.
	Tenant(id string) *Tenant
	// Now reads the store's clock, which decides whether a key has expired.
	Now() time.Time
}
