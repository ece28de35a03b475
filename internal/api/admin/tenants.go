package admin

import (
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// tenantObject is the JSON of a tenant.
type tenantObject struct {
	Name      string       `json:"name"`
	Object    string       `json:"object"`
	State     string       `json:"state"` // active, or deleting
	Limits    limitsObject `json:"limits"`
	Keys      int          `json:"keys"` // live ones
	CreatedAt *time.Time   `json:"created_at"`
	DeletedAt *time.Time   `json:"deleted_at"`
}

// limitsObject is the JSON of [access.Limits], where 0 is no limit.
type limitsObject struct {
	SubmitsPerS float64 `json:"submits_per_s"`
	Burst       int     `json:"burst"`
	Waiting     int     `json:"waiting"`
	Running     int     `json:"running"`
	Bytes       int64   `json:"bytes"`
	Streams     int     `json:"streams"`
	Uploads     int     `json:"uploads"`
}

// limitsChange is the JSON of new limits. What is left out stays as it is.
type limitsChange struct {
	SubmitsPerS *float64 `json:"submits_per_s"`
	Burst       *int     `json:"burst"`
	Waiting     *int     `json:"waiting"`
	Running     *int     `json:"running"`
	Bytes       *int64   `json:"bytes"`
	Streams     *int     `json:"streams"`
	Uploads     *int     `json:"uploads"`
}

// apply returns limits with the change.
func (c *limitsChange) apply(l access.Limits) access.Limits {
	set(&l.SubmitsPerS, c.SubmitsPerS)
	set(&l.Burst, c.Burst)
	set(&l.Waiting, c.Waiting)
	set(&l.Running, c.Running)
	set(&l.Bytes, c.Bytes)
	set(&l.Streams, c.Streams)
	set(&l.Uploads, c.Uploads)
	return l
}

func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

func newTenantObject(d *access.Directory, t *access.Tenant, now time.Time) tenantObject {
	o := tenantObject{
		Name: access.TenantName(t.ID), Object: "tenant", State: "active", Limits: limitsObject(t.Limits),
		CreatedAt: optional(t.Created), DeletedAt: optional(t.Deleted),
	}
	if !t.Deleted.IsZero() {
		o.State = "deleting"
	}
	for _, k := range d.Keys() {
		if k.Tenant == t.ID && k.State(now) == access.Live {
			o.Keys++
		}
	}
	return o
}

// listTenants writes all tenants by name.
func (a *API) listTenants(w http.ResponseWriter, r *http.Request) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	d, err := a.Registry.Refresh(r.Context())
	if err != nil {
		return err
	}
	data := []tenantObject{}
	for _, t := range d.Tenants() {
		data = append(data, newTenantObject(d, t, a.Registry.Now()))
	}
	write(w, http.StatusOK, newList(data))
	return nil
}

// getTenant writes one tenant.
func (a *API) getTenant(w http.ResponseWriter, r *http.Request) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	id, err := access.ParseTenant(r.PathValue("tenant"))
	if err != nil {
		return err
	}
	return a.writeTenant(w, r, http.StatusOK, id)
}

// writeTenant writes a tenant as it is now.
func (a *API) writeTenant(w http.ResponseWriter, r *http.Request, status int, id string) error {
	d, err := a.Registry.Refresh(r.Context())
	if err != nil {
		return err
	}
	for _, t := range d.Tenants() {
		if t.ID == id {
			write(w, status, newTenantObject(d, t, a.Registry.Now()))
			return nil
		}
	}
	return access.NoTenant(id)
}

// createTenant makes a tenant and writes it.
func (a *API) createTenant(w http.ResponseWriter, r *http.Request) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	var in struct {
		Name   string       `json:"name"`
		Limits limitsChange `json:"limits"`
	}
	if err := api.ReadJSON(r, maxBody, &in); err != nil {
		return err
	}
	id, err := access.ParseTenant(in.Name)
	if err != nil {
		return refuse(job.Invalid, "/name", "%s", err.Error())
	}
	err = a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
		return d.CreateTenant(id, in.Limits.apply(access.Limits{}), now)
	})
	if err != nil {
		return err
	}
	return a.writeTenant(w, r, http.StatusCreated, id)
}

// changeTenant changes a tenant's limits and writes the tenant.
func (a *API) changeTenant(w http.ResponseWriter, r *http.Request) error {
	if _, err := api.ParseQuery(r); err != nil {
		return err
	}
	id, err := access.ParseTenant(r.PathValue("tenant"))
	if err != nil {
		return err
	}
	var in struct {
		Limits limitsChange `json:"limits"`
	}
	if err := api.ReadJSON(r, maxBody, &in); err != nil {
		return err
	}
	err = a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
		var limits access.Limits
		if t := d.Tenant(id); t != nil {
			limits = t.Limits
		}
		return d.SetLimits(id, in.Limits.apply(limits), now)
	})
	if err != nil {
		return err
	}
	return a.writeTenant(w, r, http.StatusOK, id)
}

// deleteTenant begins to delete a tenant with all its jobs. The answer 202 says that its keys are
// revoked and that the rest follows.
func (a *API) deleteTenant(w http.ResponseWriter, r *http.Request) error {
	if err := api.RequireEmpty(r); err != nil {
		return err
	}
	id, err := access.ParseTenant(r.PathValue("tenant"))
	if err != nil {
		return err
	}
	err = a.Registry.Change(r.Context(), func(d *access.Directory, now time.Time) (access.Change, error) {
		return d.DeleteTenant(id, now)
	})
	if err != nil {
		return err
	}
	return a.writeTenant(w, r, http.StatusAccepted, id)
}
