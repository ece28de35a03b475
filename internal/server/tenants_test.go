package server

import (
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// hasTenant reports whether a tenant is listed, also while it is being deleted.
func (s *testServer) hasTenant(name string) bool {
	return s.components.registry.current.Load().HasTenant(name)
}

// left counts the jobs and rows of a tenant in the store.
func (s *testServer) left(tenant string) (jobs, rows int) {
	s.t.Helper()
	list, _, err := s.components.store.List(s.t.Context(), job.Filter{Owner: job.WholeTenant(tenant), Limit: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	kept, err := s.components.store.TenantRows(s.t.Context(), tenant, 100)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list), len(kept)
}

// A deleted tenant's keys are refused at once, and its jobs, running, waiting and ended, of all its
// users, are deleted with its conversations, also after a restart. Another tenant keeps its own.
func TestTenantIsDeletedWithItsJobs(t *testing.T) {
	t.Parallel()
	quick := func(s *Server) error { s.components.purger.grace = 0; return nil }
	s := serve(t, nil) // its grace has not passed when it stops
	text := map[string]string{}
	for _, tenant := range []string{"shop", "other"} {
		s.newTenant(`{"name":"` + tenant + `"}`)
		text[tenant] = "Bearer " + s.newKey(`{"name":"web","tenant":"`+tenant+`","role":"operator","act_as":true}`)
		for _, user := range []string{"ann", "bob"} {
			as := []string{"Authorization", text[tenant], "X-User-ID", user}
			for _, body := range []string{
				`{"queue":"sim","input":{"duration_ms":600000}}`, `{"queue":"sim","input":{},"delay_s":3600}`, `{"queue":"sim","input":{}}`,
			} {
				if status, j := s.call("POST", "/v1/jobs", body, as...); status != 202 {
					t.Fatal(status, j)
				}
			}
			if status, task := s.call("POST", "/api/chat", `{"query":"hello"}`, as...); status != 202 {
				t.Fatal(status, task)
			}
		}
	}
	if status, answer := s.admin("DELETE", "/v1/admin/tenants/shop", ""); status != 202 || answer["state"] != "deleting" {
		t.Fatal(status, answer)
	}
	if status, answer := s.call("GET", "/v1/jobs", "", "Authorization", text["shop"], "X-User-ID", "ann"); status != 401 {
		t.Error("the key of a deleted tenant:", status, answer)
	}
	if status, answer := s.admin("POST", "/v1/admin/tenants", `{"name":"shop"}`); status != 409 {
		t.Error("the name is free while the tenant is deleted:", status, answer)
	}
	s.quit()
	again := serveWith(t, func(c *config.Config) { *c = s.cfg }, quick)
	until(t, false, func() bool { return again.hasTenant("shop") })
	if jobs, rows := again.left("shop"); jobs+rows != 0 {
		t.Errorf("the tenant has left %d jobs and %d rows", jobs, rows)
	}
	if jobs, rows := again.left("other"); jobs != 8 || rows == 0 {
		t.Errorf("the other tenant has %d jobs and %d rows", jobs, rows)
	}
	if _, ok := again.components.registry.Find(text["shop"][len("Bearer mw_"):][:access.KeyIDSize]); ok {
		t.Error("the tenant has left a key")
	}
	running, err := again.components.store.Running(t.Context(), store.AllRunning, job.ID{}, 100)
	for i := range running {
		if running[i].Job.Owner.Tenant == "shop" {
			t.Error("a job of the tenant runs", err)
		}
	}
	again.newTenant(`{"name":"shop"}`)
}
