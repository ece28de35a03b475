package server

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/config"
)

// administer makes a request of the command line for a configuration.
func administer(t *testing.T, cfg config.Config, method, path, body string) (status int, answer map[string]any) {
	t.Helper()
	a, err := OpenAdmin(t.Context(), cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := a.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		t.Fatalf("%d %s: %v", res.StatusCode, text, err)
	}
	return res.StatusCode, answer
}

// admin makes a request by the socket of the server.
func (s *testServer) admin(method, path, body string) (status int, answer map[string]any) {
	s.t.Helper()
	cfg := s.cfg
	cfg.Database = "" // with a database a server has its socket too
	return administer(s.t, cfg, method, path, body)
}

func (s *testServer) newKey(body string) (text string) {
	s.t.Helper()
	status, k := s.admin("POST", "/v1/admin/keys", body)
	if status != 201 {
		s.t.Fatal(status, k)
	}
	return k["key"].(string)
}

func (s *testServer) newTenant(body string) {
	s.t.Helper()
	if status, answer := s.admin("POST", "/v1/admin/tenants", body); status != 201 {
		s.t.Fatal(status, answer)
	}
}

// restart starts another server of a configuration.
func restart(s *testServer) *testServer {
	return serve(s.t, func(c *config.Config) { *c = s.cfg })
}

// A key is made and listed by a running server, by its data directory without one, and by its
// database; and a server finds it after a start.
func TestKeysAreMadeWithAndWithoutAServer(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.newKey(`{"name":"running","role":"admin"}`)
	s.quit()
	if _, err := os.Lstat(filepath.Join(s.cfg.Data, adminSocket)); err == nil {
		t.Error("a server that has stopped leaves its socket")
	}
	status, k := administer(t, s.cfg, "POST", "/v1/admin/keys", `{"name":"stopped","scopes":["read","work:ocr"],"expires_s":60}`)
	if status != 201 || k["state"] != "live" {
		t.Fatal(status, k)
	}
	again := restart(s)
	id, secret, ok := access.ParseKeyText(k["key"].(string))
	found, known := again.components.registry.Find(id)
	if !ok || !known || !found.Matches(secret) || found.Work[0] != "ocr" {
		t.Errorf("the server does not know the key %v: %v", k, found)
	}
	_, list := again.admin("GET", "/v1/admin/keys", "")
	data, _ := list["data"].([]any)
	if len(data) != 2 || data[0].(map[string]any)["name"] != "running" || data[1].(map[string]any)["key"] != nil {
		t.Error(list)
	}
}

// The socket belongs to the server's user alone, also where the path of the directory is long. One
// that a killed server has left is no obstacle.
func TestAdminSocket(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		listener, err := listenAdmin(data)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(data, adminSocket))
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%v, %v", info, err)
		}
		conn, err := dialAdmin(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		listener.Close() // and leaves the socket
		if _, err := dialAdmin(t.Context(), data); err != errNoAdmin {
			t.Errorf("without a server: %v", err)
		}
	}
	if entries, _ := os.ReadDir(data); len(entries) != 1 {
		t.Error(entries)
	}
	if _, err := dialAdmin(t.Context(), filepath.Join(data, "none")); err != errNoAdmin {
		t.Errorf("without a directory: %v", err)
	}
}

// Every kind of bad input has a sentence, a code and the field.
func TestAdminRefusesBadInput(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.newTenant(`{"name":"shop"}`)
	s.newKey(`{"name":"web","role":"viewer"}`)
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for _, tt := range []struct {
		call, body, code, field, says string
	}{
		{"POST /v1/admin/keys", `{"name":"a","scopes":["write"]}`, "invalid_request", "/scopes", "the scopes are submit, read"},
		{"POST /v1/admin/keys", `{"name":"a","role":"root"}`, "invalid_request", "/role", "the roles are meta-viewer, viewer"},
		{"POST /v1/admin/keys", `{"name":"a"}`, "invalid_request", "/scopes", "a scope or a role"},
		{"POST /v1/admin/keys", `{"name":"a b","role":"viewer"}`, "invalid_request", "/name", "begins with a letter or digit"},
		{"POST /v1/admin/keys", `{"role":"viewer"}`, "invalid_request", "/name", "a key needs a name"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","tenant":"none"}`, "not_found", "", "no tenant \"none\""},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","tenant":"A"}`, "invalid_request", "/tenant", "no name of a tenant"},
		{"POST /v1/admin/keys", `{"name":"web","role":"viewer"}`, "conflict", "", "rotate it, revoke it"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","expires_at":"` + past + `"}`, "invalid_request", "/expires_at", "has passed"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","expires_at":"tomorrow"}`, "invalid_request", "/expires_at", "RFC 3339"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","expires_s":0}`, "invalid_request", "/expires_s", "1 to"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","expires_s":9,"expires_at":"` + past + `"}`, "invalid_request", "/expires_at", "not both"},
		{"POST /v1/admin/keys", `{"name":"a","role":"admin","tenant":"shop"}`, "invalid_request", "/tenant", "belongs to the tenant default"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","queues":["chat"]}`, "invalid_request", "/queues", "needs the scope submit"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","all_tenants":true}`, "invalid_request", "/all_tenants", "work:QUEUE"},
		{"POST /v1/admin/keys", `{"name":"a","role":"viewer","colour":1}`, "invalid_request", "/colour", "colour"},
		{"POST /v1/admin/keys", `{"name":`, "invalid_request", "/name", "JSON"},
		{"GET /v1/admin/keys?state=dead", "", "invalid_request", "", "live, expired or revoked"},
		{"GET /v1/admin/keys?tenant=none", "", "not_found", "", "no tenant"},
		{"GET /v1/admin/keys?colour=red", "", "invalid_request", "", "no parameter"},
		{"GET /v1/admin/keys/none", "", "not_found", "", "no key"},
		{"POST /v1/admin/keys/none/revoke", "", "not_found", "", "no key"},
		{"POST /v1/admin/keys/none/rotate", "", "not_found", "", "no key"},
		{"POST /v1/admin/keys/none/rotate", `{"overlap_s":1e9}`, "invalid_request", "/overlap_s", "0 to"},
		{"POST /v1/admin/tenants", `{"name":"shop"}`, "conflict", "", "already"},
		{"POST /v1/admin/tenants", `{"name":"default"}`, "conflict", "", "already"},
		{"POST /v1/admin/tenants", `{"name":"~"}`, "invalid_request", "/name", "1 to 63"},
		{"POST /v1/admin/tenants", `{"name":"b","limits":{"waiting":-1}}`, "invalid_request", "/limits/waiting", "positive"},
		{"PATCH /v1/admin/tenants/none", `{"limits":{}}`, "not_found", "", "no tenant"},
		{"PATCH /v1/admin/tenants/shop", `{"limits":{"fun":1}}`, "invalid_request", "/limits/fun", "fun"},
		{"GET /v1/admin/tenants/none", "", "not_found", "", "no tenant"},
		{"DELETE /v1/admin/tenants/none", "", "not_found", "", "no tenant"},
		{"DELETE /v1/admin/tenants/default", "", "forbidden", "", "cannot be deleted"},
		{"GET /v1/admin/nothing", "", "not_found", "", "nothing at"},
		{"DELETE /v1/admin/keys", "", "method_not_allowed", "", "GET"},
	} {
		method, path, _ := strings.Cut(tt.call, " ")
		_, answer := s.admin(method, path, tt.body)
		field, _ := answer["field"].(string)
		if answer["code"] != tt.code || field != tt.field || !strings.Contains(answer["detail"].(string), tt.says) {
			t.Errorf("%s %s: %v", tt.call, tt.body, answer)
		}
	}
	if _, list := s.admin("GET", "/v1/admin/keys", ""); len(list["data"].([]any)) != 1 {
		t.Error("a refused request has made a key:", list)
	}
}

// A rotation gives a second key, and the first one expires.
func TestKeyIsRotatedAndRevoked(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	first, _, _ := access.ParseKeyText(s.newKey(`{"name":"web","scopes":["submit"],"queues":["sim"],"act_as":true}`))
	status, second := s.admin("POST", "/v1/admin/keys/"+first+"/rotate", `{"overlap_s":60}`)
	if status != 201 || second["replaces"] != first || second["name"] != "web" || second["act_as"] != true || second["expires_at"] != nil {
		t.Fatal(status, second)
	}
	_, old := s.admin("GET", "/v1/admin/keys/"+first, "")
	expires, err := time.Parse(time.RFC3339, old["expires_at"].(string))
	if left := time.Until(expires); err != nil || old["state"] != "live" || left > time.Minute || left < 30*time.Second {
		t.Error(old, err)
	}
	for range 2 {
		if status, revoked := s.admin("POST", "/v1/admin/keys/"+first+"/revoke", ""); status != 200 || revoked["state"] != "revoked" {
			t.Error(status, revoked)
		}
	}
	if status, refused := s.admin("POST", "/v1/admin/keys/"+first+"/rotate", ""); status != 409 {
		t.Error(status, refused)
	}
	_, live := s.admin("GET", "/v1/admin/keys?state=live&name=web&tenant=default", "")
	if data := live["data"].([]any); len(data) != 1 || data[0].(map[string]any)["id"] != second["id"] {
		t.Error(live)
	}
}

// A key that is made or revoked by one of three servers, or in the database, is so in the others,
// also while every notice between them is lost.
func TestReplicasShareKeys(t *testing.T) {
	withReplicas(t, nil, func(r *replicas) {
		text := r.servers[0].newKey(`{"name":"web","role":"viewer"}`)
		id, secret, _ := access.ParseKeyText(text)
		within := func(what string, of *testServer, done func(*registry) bool) {
			r.Helper()
			began := time.Now()
			until(r.T, true, func() bool { return done(of.components.registry) })
			if took := time.Since(began); took > 5*time.Second {
				r.Errorf("%s took %s", what, took)
			}
		}
		for _, s := range r.servers {
			within("the key is accepted", s, func(g *registry) bool { k, ok := g.Find(id); return ok && k.Matches(secret) && g.On() })
		}
		if status, answer := r.servers[1].admin("POST", "/v1/admin/keys/"+id+"/revoke", ""); status != 200 {
			r.Fatal(status, answer)
		}
		for _, s := range r.servers {
			within("the key is revoked", s, func(g *registry) bool { k, _ := g.Find(id); return k.State(g.Now()) == access.Revoked })
		}
		status, made := administer(r.T, r.servers[0].cfg, "POST", "/v1/admin/keys", `{"name":"direct","role":"viewer"}`)
		if status != 201 {
			r.Fatal(status, made)
		}
		for _, s := range r.servers {
			within("the key of the database is accepted", s, func(g *registry) bool { _, ok := g.Find(made["id"].(string)); return ok })
		}
	})
}

// keyID returns the id in a key's text.
func keyID(t *testing.T, text string) string {
	t.Helper()
	id, _, ok := access.ParseKeyText(text)
	if !ok {
		t.Fatal("this is not a key")
	}
	return id
}

// With the first key every request needs one. A key that is revoked is refused from then on.
func TestFirstKeyTurnsKeysOn(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if status, answer := s.call("GET", "/v1/jobs", ""); status != 200 {
		t.Fatal(status, answer)
	}
	text := s.newKey(`{"name":"web","role":"submitter"}`)
	with := []string{"Authorization", "Bearer " + text}
	if status, answer := s.call("GET", "/v1/jobs", ""); status != 401 || answer["code"] != "key_required" {
		t.Error("without a key:", status, answer)
	}
	if status, answer := s.call("POST", "/v1/jobs", `{"queue":"sim","input":{}}`, with...); status != 202 {
		t.Error("with a key:", status, answer)
	}
	if status, answer := s.call("POST", "/v1/admin/keys", `{"name":"more","role":"admin"}`, with...); status != 403 {
		t.Error("a submitter makes a key:", status, answer)
	}
	if status, answer := s.admin("POST", "/v1/admin/keys/"+keyID(t, text)+"/revoke", ""); status != 200 {
		t.Fatal(status, answer)
	}
	if status, answer := s.call("GET", "/v1/jobs", "", with...); status != 401 || answer["code"] != "bad_key" {
		t.Error("with a revoked key:", status, answer)
	}
}

// The administrator of a tenant sees and changes the keys of the tenant, gives no more than it has,
// and does not see those of the server's administrators.
func TestTenantAdministratorMakesKeysOfItsTenant(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.newTenant(`{"name":"shop"}`)
	ids := map[string]string{}
	for name, body := range map[string]string{
		"root":   `{"name":"root","role":"admin"}`,
		"home":   `{"name":"home","scopes":["tenant-admin","read"]}`,
		"shop":   `{"name":"shop","tenant":"shop","role":"tenant-admin"}`,
		"worker": `{"name":"worker","tenant":"shop","role":"worker","all_tenants":true}`,
		"web":    `{"name":"web","tenant":"shop","scopes":["work:sim"]}`,
	} {
		text := s.newKey(body)
		ids[name] = keyID(t, text)
		ids[name+" text"] = "Bearer " + text
	}
	ask := func(as, method, path, body string) (int, map[string]any) {
		t.Helper()
		return s.call(method, path, body, "Authorization", ids[as+" text"])
	}
	names := func(as string) (list []string) {
		t.Helper()
		_, answer := ask(as, "GET", "/v1/keys", "")
		for _, k := range answer["data"].([]any) {
			list = append(list, k.(map[string]any)["name"].(string))
		}
		slices.Sort(list)
		return list
	}
	if got := names("shop"); !slices.Equal(got, []string{"shop", "web"}) {
		t.Error("the tenant's administrator sees", got)
	}
	if got := names("home"); !slices.Equal(got, []string{"home"}) {
		t.Error("the administrator of the default tenant sees", got)
	}
	if got := names("root"); !slices.Equal(got, []string{"home", "root"}) {
		t.Error("the server's administrator sees", got)
	}
	for _, tt := range []struct {
		as, call, body string
		status         int
	}{
		{"shop", "POST /v1/keys", `{"name":"a","role":"operator"}`, 201},
		{"shop", "POST /v1/keys", `{"name":"b","role":"tenant-admin","tenant":"shop"}`, 201},
		{"shop", "POST /v1/keys", `{"name":"c","role":"viewer","tenant":"default"}`, 403},
		{"shop", "POST /v1/keys", `{"name":"c","role":"admin"}`, 403},
		{"shop", "POST /v1/keys", `{"name":"c","scopes":["work:sim"]}`, 403},
		{"shop", "POST /v1/keys", `{"name":"c","scopes":["work:sim"],"all_tenants":true}`, 403},
		{"home", "POST /v1/keys", `{"name":"c","role":"submitter"}`, 403},
		{"home", "POST /v1/keys", `{"name":"c","role":"viewer"}`, 201},
		{"home", "POST /v1/keys/" + ids["root"] + "/rotate", "", 404},
		{"home", "POST /v1/keys/" + ids["root"] + "/revoke", "", 404},
		{"home", "GET /v1/keys/" + ids["root"], "", 404},
		{"shop", "POST /v1/keys/" + ids["home"] + "/revoke", "", 404},
		{"shop", "POST /v1/keys/" + ids["worker"] + "/revoke", "", 404},
		{"shop", "POST /v1/keys/" + ids["web"] + "/rotate", "", 403}, // it works on queues
		{"shop", "POST /v1/keys/" + ids["web"] + "/revoke", "", 200},
		{"shop", "GET /v1/keys?tenant=default", "", 400},
		{"shop", "GET /v1/admin/keys", "", 403},
		{"shop", "POST /v1/admin/tenants", `{"name":"mine"}`, 403},
		{"shop", "PATCH /v1/admin/tenants/shop", `{"limits":{"waiting":0}}`, 403},
		{"shop", "DELETE /v1/admin/tenants/shop", "", 403},
		{"web", "GET /v1/keys", "", 401},
		{"worker", "GET /v1/keys", "", 403},
	} {
		method, path, _ := strings.Cut(tt.call, " ")
		if status, answer := ask(tt.as, method, path, tt.body); status != tt.status {
			t.Errorf("%s: %s %s: %d %v, want %d", tt.as, tt.call, tt.body, status, answer, tt.status)
		}
	}
}
