package admin

import (
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// keyObject is the JSON of a key.
type keyObject struct {
	ID         string          `json:"id"`
	Object     string          `json:"object"`
	Tenant     string          `json:"tenant"`
	Name       string          `json:"name"`
	Scopes     []string        `json:"scopes"`
	Queues     []string        `json:"queues"` // where it may submit; empty: everywhere
	ActAs      bool            `json:"act_as"`
	AllTenants bool            `json:"all_tenants"`
	State      access.KeyState `json:"state"`
	CreatedAt  time.Time       `json:"created_at"`
	ExpiresAt  *time.Time      `json:"expires_at"`
	RevokedAt  *time.Time      `json:"revoked_at"`
	Replaces   *string         `json:"replaces"` // the key that this one was rotated from
}

// newKey is the JSON of a key that was just made. Only this answer has the key itself.
type newKey struct {
	keyObject
	Key string `json:"key"`
}

func newKeyObject(k *access.Key, now time.Time) keyObject {
	o := keyObject{
		ID: k.ID, Object: "key", Tenant: access.TenantName(k.Tenant), Name: k.Name, Scopes: k.ScopeNames(), Queues: k.Queues, ActAs: k.ActAs, AllTenants: k.AllTenants,
		State: k.State(now), CreatedAt: k.Created.UTC(), ExpiresAt: optional(k.Expires), RevokedAt: optional(k.Revoked),
	}
	if o.Queues == nil {
		o.Queues = []string{}
	}
	if k.Replaces != "" {
		o.Replaces = &k.Replaces
	}
	return o
}

// reach says whose keys a route is about.
type reach bool

const (
	everywhere reach = false
	ownTenant  reach = true
)

// view is what a request may see and give.
type view struct {
	reach
	tenant string
	key    string // the id of the caller's key; "" for none
}

func viewOf(r *http.Request, of reach) view {
	caller := gate.CallerFrom(r)
	return view{of, caller.Owner().Tenant, caller.KeyID()}
}

// sees reports whether the caller sees a key. The keys of the server's administrators, and those
// that work for all tenants, do not exist for a tenant's administrator.
func (v view) sees(d *access.Directory, k *access.Key) bool {
	if v.reach == everywhere {
		return true
	}
	return k.Tenant == v.tenant && (v.giver(d).Scopes.Allow(access.Admin) || !k.Scopes.Allow(access.Admin) && !k.AllTenants)
}

// giver returns the key that makes or rotates another one. Without keys a caller may give what the
// route is for.
func (v view) giver(d *access.Directory) *access.Key {
	if k, ok := d.Key(v.key); ok {
		return k
	}
	giver := &access.Key{Tenant: v.tenant, Scopes: access.AllScopes, Work: []string{access.AnyQueue}}
	if v.reach == ownTenant {
		giver.Scopes &^= access.Admin
	}
	return giver
}

// find returns a key that the caller sees.
func (v view) find(d *access.Directory, id string) (*access.Key, error) {
	k, ok := d.Key(id)
	if !ok || !v.sees(d, k) {
		return nil, access.NoKey(id)
	}
	return k, nil
}

// listKeys writes the keys, oldest first.
func (a *API) listKeys(of reach) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		allowed := []string{"tenant", "name", "state"}
		if of == ownTenant {
			allowed = allowed[1:]
		}
		query, err := api.ParseQuery(r, allowed...)
		if err != nil {
			return err
		}
		state := access.KeyState(query.Get("state"))
		switch state {
		case "", access.Live, access.Expired, access.Revoked:
		default:
			return job.Errorf(job.Invalid, "there is no state %s; a key is live, expired or revoked", job.Quote(string(state)))
		}
		d, err := a.Registry.Refresh(r.Context())
		if err != nil {
			return err
		}
		tenant, err := filterTenant(d, query.Get("tenant"))
		if err != nil {
			return err
		}
		v, now, found := viewOf(r, of), a.Registry.Now(), []keyObject{}
		for _, k := range d.Keys() {
			if v.sees(d, k) && (tenant == nil || *tenant == k.Tenant) && (query.Get("name") == "" || query.Get("name") == k.Name) && (state == "" || state == k.State(now)) {
				found = append(found, newKeyObject(k, now))
			}
		}
		write(w, http.StatusOK, newList(found))
		return nil
	}
}

// filterTenant returns the id of the tenant that a list asks for; nil for every tenant.
func filterTenant(d *access.Directory, name string) (*string, error) {
	if name == "" {
		return nil, nil
	}
	id, err := access.ParseTenant(name)
	if err == nil && !d.HasTenant(id) {
		err = access.NoTenant(name)
	}
	return &id, err
}

// getKey writes one key.
func (a *API) getKey(of reach) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := api.ParseQuery(r); err != nil {
			return err
		}
		d, err := a.Registry.Refresh(r.Context())
		if err != nil {
			return err
		}
		k, err := viewOf(r, of).find(d, r.PathValue("key"))
		if err != nil {
			return err
		}
		write(w, http.StatusOK, newKeyObject(k, a.Registry.Now()))
		return nil
	}
}

// keyRequest is the body of a request for a new key.
type keyRequest struct {
	Tenant     *string  `json:"tenant"` // on /v1/admin/keys only
	Name       string   `json:"name"`
	Scopes     []string `json:"scopes"`
	Role       string   `json:"role"` // a bundle of scopes, in addition to scopes
	Queues     []string `json:"queues"`
	ActAs      bool     `json:"act_as"`
	AllTenants bool     `json:"all_tenants"`
	Expires    *float64 `json:"expires_s"`
	ExpiresAt  string   `json:"expires_at"`
}

// key returns the key that the request describes, without its expiry.
func (in *keyRequest) key(v view) (k access.Key, err error) {
	k = access.Key{Tenant: v.tenant, Name: in.Name, Queues: access.Sorted(in.Queues), ActAs: in.ActAs, AllTenants: in.AllTenants}
	if v.reach == everywhere {
		k.Tenant = access.DefaultTenant
	}
	if in.Tenant != nil {
		if k.Tenant, err = access.ParseTenant(*in.Tenant); err != nil {
			return k, err
		}
		if v.reach == ownTenant && k.Tenant != v.tenant {
			return k, refuse(job.Forbidden, "/tenant", "an administrator of a tenant makes keys of that tenant only")
		}
	}
	names := in.Scopes
	if in.Role != "" {
		bundle, err := access.RoleScopes(in.Role)
		if err != nil {
			return k, atField(err, "/role")
		}
		names = append(bundle, names...)
	}
	k.Scopes, k.Work, err = access.ParseScopes(names)
	return k, atField(err, "/scopes")
}

// createKey makes a key and writes it, with its secret.
func (a *API) createKey(of reach) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := api.ParseQuery(r); err != nil {
			return err
		}
		var in keyRequest
		if err := api.ReadJSON(r, maxBody, &in); err != nil {
			return err
		}
		v := viewOf(r, of)
		k, err := in.key(v)
		if err != nil {
			return err
		}
		expiry, err := parseExpiry(in.Expires, in.ExpiresAt)
		if err != nil {
			return err
		}
		secret := access.NewSecret()
		k.ID, k.Hash = access.NewKeyID(), secret.Hash()
		var made *access.Key
		err = a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
			k := k
			k.Expires = expiry.from(now)
			if err := v.giver(d).MayGive(&k); err != nil {
				return access.Change{}, err
			}
			c, err := d.CreateKey(k, now)
			if err == nil {
				made = c.Keys[0]
			}
			return c, err
		})
		if err != nil {
			return err
		}
		write(w, http.StatusCreated, newKey{newKeyObject(made, a.Registry.Now()), access.KeyText(made.ID, secret)})
		return nil
	}
}

// revokeKey ends a key at once, and writes it.
func (a *API) revokeKey(of reach) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := api.RequireEmpty(r); err != nil {
			return err
		}
		v, id := viewOf(r, of), r.PathValue("key")
		var revoked *access.Key
		err := a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
			var err error
			if revoked, err = v.find(d, id); err != nil {
				return access.Change{}, err
			}
			c, err := d.RevokeKey(id, now)
			if len(c.Keys) > 0 {
				revoked = c.Keys[0]
			}
			return c, err
		})
		if err != nil {
			return err
		}
		write(w, http.StatusOK, newKeyObject(revoked, a.Registry.Now()))
		return nil
	}
}

// rotateRequest is the body of a rotation. It may be empty.
type rotateRequest struct {
	Overlap   *float64 `json:"overlap_s"`
	Expires   *float64 `json:"expires_s"`
	ExpiresAt string   `json:"expires_at"`
}

// rotateKey makes a key in place of another one, and writes it, with its secret.
func (a *API) rotateKey(of reach) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in rotateRequest
		if err := readOptional(r, &in); err != nil {
			return err
		}
		expiry, err := parseExpiry(in.Expires, in.ExpiresAt)
		if err != nil {
			return err
		}
		overlap, err := parseSpan("/overlap_s", in.Overlap, access.DefaultOverlap, access.MaxOverlap)
		if err != nil {
			return err
		}
		v, id, secret := viewOf(r, of), r.PathValue("key"), access.NewSecret()
		rotation := access.Rotation{ID: access.NewKeyID(), Hash: secret.Hash(), Overlap: overlap}
		var made *access.Key
		err = a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
			k, err := v.find(d, id)
			if err == nil {
				err = v.giver(d).MayGive(k)
			}
			if err != nil {
				return access.Change{}, err
			}
			rotation.Expires = expiry.from(now)
			c, err := d.RotateKey(id, rotation, now)
			if err == nil {
				made = c.Keys[0]
			}
			return c, err
		})
		if err != nil {
			return err
		}
		write(w, http.StatusCreated, newKey{newKeyObject(made, a.Registry.Now()), access.KeyText(made.ID, secret)})
		return nil
	}
}
