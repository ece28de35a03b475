// Package admin is the HTTP API of keys and tenants: /v1/admin for an administrator of the
// server, and /v1/keys for one of a tenant.
//
// Package access has the rules. A [Registry] stores what they decide.
package admin

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
)

// Registry has all keys and tenants.
type Registry interface {
	// Refresh returns the newest keys and tenants.
	Refresh(ctx context.Context) (*access.Directory, error)
	// Change stores what decide makes of the newest keys and tenants. It may call decide several
	// times. An error of decide is returned, and nothing is stored.
	Change(ctx context.Context, decide func(d *access.Directory, now time.Time) (access.Change, error)) error
	// Now reads the store's clock.
	Now() time.Time
}

// Config configures an API.
type Config struct {
	Registry Registry
	Log      *slog.Logger
}

// API has the handlers.
type API struct{ Config }

// New returns an API.
func New(c Config) *API { return &API{c} }

// Wait returns at once: the API has no streams.
func (a *API) Wait() {}

// Register adds the API's routes to a mux, with what a caller needs for them. Without keys a server
// lets only programs of its machine make the first one: others could lock its owner out.
func (a *API) Register(mux gate.Routes) {
	admin, tenantAdmin := gate.Scope(access.Admin).OnMachine(), gate.Scope(access.TenantAdmin).OnMachine()
	for _, route := range []struct {
		pattern string
		need    gate.Need
		handle  api.Handler
	}{
		{"GET /v1/admin/keys", admin, a.listKeys(everywhere)},
		{"POST /v1/admin/keys", admin, a.createKey(everywhere)},
		{"GET /v1/admin/keys/{key}", admin, a.getKey(everywhere)},
		{"POST /v1/admin/keys/{key}/revoke", admin, a.revokeKey(everywhere)},
		{"POST /v1/admin/keys/{key}/rotate", admin, a.rotateKey(everywhere)},
		{"GET /v1/keys", tenantAdmin, a.listKeys(ownTenant)},
		{"POST /v1/keys", tenantAdmin, a.createKey(ownTenant)},
		{"GET /v1/keys/{key}", tenantAdmin, a.getKey(ownTenant)},
		{"POST /v1/keys/{key}/revoke", tenantAdmin, a.revokeKey(ownTenant)},
		{"POST /v1/keys/{key}/rotate", tenantAdmin, a.rotateKey(ownTenant)},
		{"GET /v1/admin/tenants", admin, a.listTenants},
		{"POST /v1/admin/tenants", admin, a.createTenant},
		{"GET /v1/admin/tenants/{tenant}", admin, a.getTenant},
		{"PATCH /v1/admin/tenants/{tenant}", admin, a.changeTenant},
		{"DELETE /v1/admin/tenants/{tenant}", admin, a.deleteTenant},
	} {
		mux.Handle(route.pattern, route.need, api.Wrap(a.Log, api.WriteProblem, route.handle))
	}
}

// maxBody bounds the bodies of requests, in bytes.
const maxBody = 64 << 10

// write writes an answer that no cache may keep.
func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	api.WriteJSON(w, status, v)
}

// list is the JSON of a list. It has only one page: the number of keys and of tenants is bounded.
type list[T any] struct {
	Object string  `json:"object"`
	Data   []T     `json:"data"`
	Next   *string `json:"next"`
}

func newList[T any](data []T) list[T] { return list[T]{Object: "list", Data: data} }

// optional returns nil for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
